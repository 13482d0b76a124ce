-- How fresh and how complete are the data?
-- Variables: partner_id, now
select
    last_complete_at,
    round(extract(epoch from cast(:'now' as timestamptz) - last_complete_at) / 3600, 1)
    as hours_old,
    last_run_status,
    tokens_listed,
    tokens_known,
    unreadable,
    rejected,
    certificate
from sync_freshness
where partner_id = :partner_id
