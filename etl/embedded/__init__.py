"""A Postgres of one's own: server, cluster, binaries, reaper."""
