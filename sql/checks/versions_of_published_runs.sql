-- Every version was published by a run that succeeded: failed runs leave no trace.
select
    version.partner_id,
    version.token_id,
    version.version,
    version.run_id,
    run.status as run_status
from upload_token_history as version
left join sync_run as run on run.run_id = version.run_id
where run.status is distinct from 'succeeded'
