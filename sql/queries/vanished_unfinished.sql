-- Which uploads vanished without ever finishing?
-- Variables: partner_id, since
select
    token.token_id,
    token.user_id,
    coalesce(status.name, 'UNKNOWN_' || token.status, 'UNKNOWN') as last_status,
    token.created_at,
    token.last_listed_at as went_after,
    token.absence_confirmed_at as went_before,
    token.uploaded_size_bytes as received
from upload_token as token
inner join upload_outcome as upload
    on token.partner_id = upload.partner_id and token.token_id = upload.token_id
left join upload_token_status as status on token.status = status.code
where
    token.partner_id = :partner_id
    and not token.is_listed
    and token.valid_from >= cast(:'since' as timestamptz)
    -- Open when last listed: what has failed has finished.
    and coalesce(status.outcome_group, 'open') = 'open'
    and upload.outcome <> 'succeeded'
order by token.absence_confirmed_at desc, token.token_id
