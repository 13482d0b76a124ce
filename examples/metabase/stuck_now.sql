-- Uploads that are stuck now
-- Display: table; `hours_stuck` with a mini bar chart
-- Variables: partner_id (number, required)
select
    last_moved_at,
    user_id,
    file_name,
    status,
    round(cast(stuck_for_seconds / 3600 as numeric), 1) as hours_stuck,
    percent_received,
    file_size_bytes,
    token_id
from kaltura.stuck_upload
where partner_id = {{partner_id}}
order by last_moved_at desc, token_id
