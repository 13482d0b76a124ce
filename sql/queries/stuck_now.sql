-- What is stuck now?
-- Variables: partner_id
select
    token_id,
    user_id,
    status,
    last_moved_at,
    stuck_for,
    percent_received
from stuck_upload
where partner_id = :partner_id
order by stuck_for desc, token_id
