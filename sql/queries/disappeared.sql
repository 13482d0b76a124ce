-- What disappeared, newest first: the token went after last_listed_at, before absence_confirmed_at.
select
    token.run_id,
    token.token_id,
    coalesce(status.name, 'UNKNOWN_' || token.status) as last_status,
    token.last_listed_at,
    token.absence_confirmed_at
from upload_token as token
left join upload_token_status as status on token.status = status.code
where not token.is_listed
order by token.absence_confirmed_at desc, token.token_id
limit 5
