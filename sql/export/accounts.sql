-- The accounts that have something to export, each with its last publication.
--
-- What else changes the history is there too: the last pruning, and a hash of what was erased.  Not
-- from the table erasure, which analysts may not read, but by the condition of the indexes on marked
-- versions (MARKED in etl/warehouse/schema/token_tables.py), which finds these alone.
select
    run.partner_id,
    run.run_id,
    run.published_at,
    (
        select max(pruning.pruning_id) from pruning where pruning.partner_id = run.partner_id
    ) as pruning_id,
    (
        select
            sum(
                hashtextextended(
                    cast(row(known.token_id, known.user_id, known.file_name, known.extra) as text),
                    known.version
                )
            )
        from upload_token_history as known
        where
            known.partner_id = run.partner_id
            and (
                starts_with(known.user_id, 'erased:')
                or starts_with(known.file_name, 'erased:')
                or known.extra ? 'erased'
            )
    ) as erased
from sync_run as run
where
    run.run_id in (
        select max(published.run_id)
        from sync_run as published
        where
            published.published_at is not null
            and published.partner_id
            = coalesce(cast(%(partner_id)s as integer), published.partner_id)
        group by published.partner_id
    )
order by run.partner_id
