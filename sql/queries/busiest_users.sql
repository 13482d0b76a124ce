-- Who uploads most, and how many of their uploads succeed?
-- Variables: partner_id
select
    user_id,
    uploads,
    round(bytes_received / 1e9, 2) as gb_received,
    succeeded,
    failed,
    abandoned,
    deleted,
    still_open,
    last_upload_at
from upload_user_summary
where partner_id = :partner_id
order by bytes_received desc, user_id
limit 20
