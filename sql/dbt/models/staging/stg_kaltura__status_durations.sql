-- How long each token was in each status, at least and at most, also where no run saw it.
select
    partner_id,
    token_id,
    status,
    seen as is_seen,
    is_current,
    at_least_seconds,
    at_most_seconds,
    estimated_at_most_seconds,
    created_at
from {{ source('kaltura', 'upload_status_duration') }}
