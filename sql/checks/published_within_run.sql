-- A run published between its start and its end, and not in the future.
select
    partner_id,
    run_id,
    started_at,
    published_at,
    finished_at,
    published_before
from (
    select
        *,
        lag(published_at) over (partition by partner_id order by run_id) as published_before
    from sync_run
    where published_at is not null
) as run
where
    mode <> 'replay' -- keeps the timestamps of the replayed runs
    -- If the server's clock is set back, timestamps continue from the latest one.
    and published_at is distinct from published_before + interval '1 microsecond'
    and (
        published_at < started_at
        or published_at > finished_at
        or published_at > clock_timestamp()
    )
