-- The two times of an absence are in order: listed first, then found missing.
select
    partner_id,
    token_id,
    version,
    last_listed_at,
    absence_confirmed_at
from upload_token_history
where change_kind = 'absent' and absence_confirmed_at < last_listed_at
