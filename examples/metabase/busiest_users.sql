-- Who uploads most, and how many of the uploads succeed
-- Display: table; `gigabytes` with a mini bar chart
-- Variables: partner_id (number, required)
select
    user_id,
    round(bytes_received / 1e9, 2) as gigabytes,
    uploads,
    succeeded,
    failed,
    abandoned,
    deleted,
    still_open,
    last_upload_at
from kaltura.upload_user_summary
where partner_id = {{partner_id}}
order by bytes_received desc, user_id
limit 50
