-- valid_from of a version is published_at of its run.
select
    version.partner_id,
    version.token_id,
    version.version,
    version.valid_from,
    version.run_id,
    run.published_at
from upload_token_history as version
join sync_run as run on run.run_id = version.run_id
where run.status = 'succeeded' and version.valid_from is distinct from run.published_at
