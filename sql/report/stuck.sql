-- Open uploads without progress for a day or more, the longest first, and their number.
select
    token_id,
    user_id,
    file_name,
    status,
    created_at,
    last_moved_at,
    stuck_for,
    file_size_bytes,
    uploaded_size_bytes,
    percent_received,
    count(*) over () as total
from stuck_upload
where partner_id = %(partner_id)s
order by stuck_for desc, token_id
limit %(rows)s;
