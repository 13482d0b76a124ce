-- A run publishes tokens of its own account only.
select
    version.partner_id,
    version.token_id,
    version.version,
    version.run_id,
    run.partner_id as run_partner_id
from upload_token_history as version
join sync_run as run on run.run_id = version.run_id
where run.partner_id <> version.partner_id
