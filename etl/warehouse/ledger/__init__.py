"""The ledger ``sync_run``: the lease, what a run is, resuming, certificates, replayed runs."""
