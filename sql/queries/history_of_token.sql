-- What is the history of a token?
-- Variables: partner_id, token_id
select
    token.version,
    token.run_id,
    token.change_kind,
    case
        when token.is_listed then token.status_name else 'NOT_LISTED'
    end as status,
    token.updated_at,
    token.valid_from,
    token.changed_columns
from upload_token_history as token
where
    token.partner_id = :partner_id
    and token.token_id = :'token_id'
order by token.version
