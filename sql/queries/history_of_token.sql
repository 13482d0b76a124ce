-- What is the history of a token?
-- Variables: partner_id, token_id
select
    token.version,
    token.run_id,
    token.change_kind,
    coalesce(status.name, 'UNKNOWN_' || token.status, 'UNKNOWN') as status,
    token.updated_at,
    token.valid_from,
    token.changed_columns
from upload_token_history as token
left join upload_token_status as status on token.status = status.code
where
    token.partner_id = :partner_id
    and token.token_id = :'token_id'
order by token.version
