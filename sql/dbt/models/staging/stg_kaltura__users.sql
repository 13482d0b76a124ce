-- Uploads of each user; user_id is null for tokens without one.
select
    partner_id,
    user_id,
    uploads,
    succeeded,
    failed,
    abandoned,
    deleted,
    still_open,
    bytes_received,
    first_upload_at,
    last_upload_at,
    median_seconds_to_complete
from {{ source('kaltura', 'upload_user_summary') }}
