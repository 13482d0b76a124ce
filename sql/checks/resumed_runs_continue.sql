-- A resumed run continues the walk of an unpublished run of the same account, mode, range, service.
select
    run.partner_id,
    run.run_id,
    run.resumed_from,
    run.walk_id,
    origin.status as resumed_status,
    origin.walk_id as resumed_walk_id
from sync_run as run
left join sync_run as origin on origin.run_id = run.resumed_from
where
    run.walk_id is distinct from run.run_id
    -- A run that is starting has no walk yet.
    and not (run.walk_id is null and run.status = 'running')
    and (
        run.walk_id is null
        or origin.run_id is null
        or origin.run_id >= run.run_id
        -- A walk that the audit refused starts over.  Program versions without oldest_page_at
        -- resumed it.
        or origin.status not in ('failed', 'abandoned', 'refused')
        or (origin.status = 'refused' and run.oldest_page_at is not null)
        or origin.walk_id is distinct from run.walk_id
        -- Earlier program versions did not record it.
        or origin.service <> run.service
        or (
            origin.partner_id,
            coalesce(origin.overrides ->> 'replayed_mode', origin.mode),
            origin.range_from,
            origin.range_to
        ) is distinct from (
            run.partner_id,
            coalesce(run.overrides ->> 'replayed_mode', run.mode),
            run.range_from,
            run.range_to
        )
    )
