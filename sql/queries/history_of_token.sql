-- The history of one token (:'token_id'): a row for each version, with what differs from the last.
select
    token.version,
    token.run_id,
    token.change_kind,
    coalesce(status.name, 'UNKNOWN_' || token.status) as status,
    token.updated_at,
    token.changed_columns
from upload_token_history as token
left join upload_token_status as status on token.status = status.code
where token.token_id = :'token_id'
order by token.partner_id, token.version
