-- Which uploads failed, whose were they, and how far did they get?
-- Variables: partner_id, since
select
    token.token_id,
    token.user_id,
    token.file_name,
    status.name as status,
    token.updated_at as failed_at,
    case
        when token.file_size_bytes > 0
            then round(100.0 * coalesce(token.uploaded_size_bytes, 0) / token.file_size_bytes)
    end as percent
from upload_token as token
inner join upload_token_status as status on token.status = status.code
where
    token.partner_id = :partner_id
    and status.outcome_group = 'failed'
    and token.updated_at >= cast(:'since' as timestamptz)
order by token.updated_at desc, token.token_id
