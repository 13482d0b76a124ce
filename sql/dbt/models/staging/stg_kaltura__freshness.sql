-- How fresh and how complete the warehouse is, for each account.
select
    partner_id,
    last_published_at,
    last_complete_at,
    open_seen_at,
    age_seconds,
    complete_age_seconds,
    last_run_status,
    running as is_running,
    tokens_listed,
    tokens_known,
    unreadable,
    rejected
from {{ source('kaltura', 'sync_freshness') }}
