"""The only SQL: tables, ledger, loading, privacy, rights and what is read for people.

    read      queries for people: status, report, verify, samples, comparison of schemas
    load      observations → compare → staging → missing → resolve → publish
    privacy   erase and prune
    ledger    sync_run: lease and fence, resuming, certificates, replayed runs
    access    what loader, analyst and auditor may do
    schema    tables as SQLAlchemy knows them, revision, migration, ``Database``
    engine    connections, transactions, errors, COPY

Each imports only what is below it.  Functions take a ``Database`` (``schema.database``) and, where
they belong to a run, an ``OpenRun`` (``ledger.run``), which a transaction fences before it writes.

The path of a batch: ``load.staging.stage_batch`` sends the decoded rows as a relation, and
``load.compare`` says in SQL which differ from ``upload_token`` and which known tokens are missing
in the spans.  Only those rows go to ``upload_token_staging``, with one ``sync_page`` row per page
and the new coverage, in one transaction.  ``load.resolve`` turns staging into at most one outcome
per token; ``load.publish`` moves the replaced versions and upserts the new ones in one transaction.
"""
