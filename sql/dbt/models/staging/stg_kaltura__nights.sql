-- What came of each calendar day's runs: complete, partial, failed or no_run.
select
    partner_id,
    day,
    outcome,
    runs,
    complete_at,
    last_attempt_at,
    error_kind
from {{ source('kaltura', 'sync_night') }}
