-- Every version was superseded by a run that succeeded, at that run's published_at.
select
    version.partner_id,
    version.token_id,
    version.version,
    version.valid_to,
    version.superseded_by_run_id,
    run.status as run_status,
    run.published_at
from upload_token_superseded as version
left join sync_run as run on run.run_id = version.superseded_by_run_id
where
    run.status is distinct from 'succeeded'
    or version.valid_to is distinct from run.published_at
