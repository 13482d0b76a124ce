-- How many tokens were in each status at the end of each day, as far as is known now.
select
    partner_id,
    day,
    status,
    tokens,
    unseen_tokens,
    known_at,
    stale_by_seconds,
    time_zone
from {{ source('kaltura', 'upload_token_daily_status') }}
