-- A run publishes and supersedes only tokens of its own account.
select
    version.partner_id,
    version.token_id,
    version.version,
    run.run_id,
    run.partner_id as run_partner_id
from upload_token_history as version
join sync_run as run on run.run_id = version.run_id
where run.partner_id <> version.partner_id
union all
select
    version.partner_id,
    version.token_id,
    version.version,
    run.run_id,
    run.partner_id as run_partner_id
from upload_token_superseded as version
join sync_run as run on run.run_id = version.superseded_by_run_id
where run.partner_id <> version.partner_id
