-- Which runs failed, or could not read everything?
-- Variables: partner_id, since
select
    run.run_id,
    run.started_at,
    run.status,
    run.error_kind,
    run.resumed_from,
    run.unreadable,
    (
        select min(later.published_at)
        from sync_run as later
        where
            later.partner_id = run.partner_id
            and later.published_at >= run.started_at
            and later.coverage = '{(,)}'
    ) as made_good_at
from sync_run as run
where
    run.partner_id = :partner_id
    and run.started_at >= cast(:'since' as timestamptz)
    and (
        run.status in ('refused', 'failed', 'abandoned')
        or run.resumed_from is not null
        or run.unreadable > 0
    )
order by run.run_id
