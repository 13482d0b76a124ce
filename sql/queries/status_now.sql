-- How many tokens are in each status now?
-- Variables: partner_id
select
    coalesce(status.name, 'UNKNOWN_' || token.status, 'UNKNOWN') as status,
    count(*) as tokens,
    min(token.created_at) as oldest
from upload_token as token
left join upload_token_status as status on token.status = status.code
where token.partner_id = :partner_id and token.is_listed
group by token.status, status.name
order by token.status
