"""kaltura-etl: the history of every upload token of a Kaltura account, in Postgres.

The rooms, from the top; each imports only what is below it (docs/architecture.md):

    cli         parse, call, print: one command per file
    demo        a simulated week · preflight  what ``check`` proves
    verify      invariants and certificates · replay  rebuild from an archive
    run         one run, whatever its mode: from plan to publish · report  the HTML page ·
                notify  a notice of how a run ended
    archive     accepted replies, kept
    warehouse   the only SQL · kaltura  the only HTTP · walk  from pages to a certificate: pure
    tokens      rows of the wire become tokens: pure · settings · embedded  a Postgres of one's own
    process     log, secrets, signals, progress, metrics of this process
    coverage    spans of createdAt: pure · simulator  a stand-in for the service, imports nothing
    errors      by what the caller should do · resources  files of the package, the version

The path of one page: ``walk`` asks for it; ``run.fetch`` has ``kaltura`` request it and ``tokens``
decode it into a ``Page``; ``walk`` says which span it proves; ``run.leg`` collects a batch, which
``warehouse.load.staging`` compares with ``upload_token``, keeping the differences.  When the
coverage is complete, ``run.audit`` lets the run pass and ``warehouse.load.publish`` makes it
visible.
"""
