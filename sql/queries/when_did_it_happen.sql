-- When did each change of a token happen, and how certain is that?
-- Variables: partner_id, token_id
select
    to_status,
    happened_at,
    happened_after,
    happened_before,
    time_in_from_status
from upload_token_status_history
where partner_id = :partner_id and token_id = :'token_id'
order by version
