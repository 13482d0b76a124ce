-- Uploads that failed or were abandoned, and whose
-- Display: table; `outcome` with conditional colors
-- Variables: partner_id (number, required), since (date)
select
    created_at,
    user_id,
    file_name,
    outcome,
    last_shown_status,
    file_size_bytes,
    uploaded_size_bytes,
    token_id
from kaltura.upload_mart
where
    partner_id = {{partner_id}}
    and outcome in ('failed', 'abandoned')
    [[and created_at >= {{since}}]]
order by created_at desc, token_id
