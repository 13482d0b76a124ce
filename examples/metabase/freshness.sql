-- How fresh is all this?
-- Display: table, or number of `hours_since_complete`
-- Variables: partner_id (number, required)
select
    round(cast(complete_age_seconds / 3600 as numeric), 1) as hours_since_complete,
    last_run_status,
    tokens_listed,
    last_complete_at,
    open_seen_at
from kaltura.sync_freshness
where partner_id = {{partner_id}}
