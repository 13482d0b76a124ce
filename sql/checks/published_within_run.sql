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
    mode <> 'replay' -- which keeps the stamps of the runs that it replays
    -- When the server's clock was set back, stamps go on where they were.
    and published_at is distinct from published_before + interval '1 microsecond'
    and (
        published_at < started_at
        or published_at > finished_at
        or published_at > clock_timestamp()
    )
