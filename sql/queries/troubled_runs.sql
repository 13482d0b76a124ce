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
        select later.published_at
        from sync_run as later
        where
            later.partner_id = run.partner_id
            and later.published_at >= run.started_at
            -- A case, because an equality of ranges is taken to be rare.
            and case when sync_run_is_complete(later.coverage, later.holes) then true end
            -- What the run itself could not read, the later one must have read.
            and (run.unreadable = 0 or later.run_id > run.run_id)
            and (
                run.published_at is null
                or later.coverage @> sync_tolerated_holes(run.holes, true)
            )
        order by later.published_at
        limit 1
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
