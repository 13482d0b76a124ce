-- Open uploads that had not moved for 24 hours when the open tokens were last read.
select
    partner_id,
    token_id,
    user_id,
    file_name,
    status,
    created_at,
    updated_at,
    last_moved_at,
    stuck_for_seconds,
    file_size_bytes,
    uploaded_size_bytes,
    percent_received
from {{ source('kaltura', 'stuck_upload') }}
