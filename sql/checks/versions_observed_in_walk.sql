-- A version was observed between the start of its walk and its publication.
select
    version.partner_id,
    version.token_id,
    version.version,
    version.run_id,
    walk.started_at as walk_began_at,
    version.observed_at,
    run.published_at
from upload_token_history as version
join sync_run as run on run.run_id = version.run_id
join sync_run as walk on walk.partner_id = run.partner_id and walk.run_id = run.walk_id
where
    run.status = 'succeeded'
    and (
        version.observed_at < walk.started_at
        -- Times within a run are by the program's monotonic clock, published_at by the server's.
        or version.observed_at > run.published_at + interval '1 minute'
    )
