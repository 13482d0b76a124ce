-- Uploads that disappeared while open, in the days shown, the latest first.
--
-- is_new: since the publication of the complete run before the last one.
select
    token.token_id,
    token.user_id,
    token.file_name,
    coalesce(status.name, 'UNKNOWN_' || token.status, 'UNKNOWN') as status,
    token.created_at,
    token.last_listed_at,
    token.absence_confirmed_at,
    token.file_size_bytes,
    token.uploaded_size_bytes,
    coalesce(token.valid_from > %(since)s, false) as is_new,
    count(*) over () as total
from upload_token as token
left join upload_token_status as status on status.code = token.status
where
    token.partner_id = %(partner_id)s
    and not token.is_listed
    and coalesce(status.outcome_group, 'open') = 'open'
    and token.absence_confirmed_at >= cast(%(seen_from)s as timestamp) at time zone %(time_zone)s
    -- It was published after that: so an index finds those of the days shown.
    and token.valid_from >= cast(%(seen_from)s as timestamp) at time zone %(time_zone)s
order by token.absence_confirmed_at desc, token.created_at desc, token.token_id
limit %(rows)s;
