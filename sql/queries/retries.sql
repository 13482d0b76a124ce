-- Which files did the same user upload again, after an upload that had not succeeded?
-- Variables: partner_id, since
with attempt as (
    select
        upload.token_id,
        upload.user_id,
        token.file_name,
        upload.created_at,
        upload.outcome,
        lag(upload.outcome) over same_file as outcome_before,
        upload.created_at - lag(upload.created_at) over same_file as after
    from upload_outcome as upload
    inner join upload_token as token
        on upload.partner_id = token.partner_id and upload.token_id = token.token_id
    where
        upload.partner_id = :partner_id
        and upload.created_at >= cast(:'since' as timestamptz) - interval '7 days'
        and upload.user_id is not null
        and token.file_name is not null
    window same_file as (
        partition by upload.user_id, token.file_name, upload.file_size_bytes
        order by upload.created_at, upload.token_id
    )
)

select
    user_id,
    file_name,
    outcome_before,
    after,
    token_id,
    outcome
from attempt
where
    outcome_before <> 'succeeded'
    and after <= interval '7 days'
    and created_at >= cast(:'since' as timestamptz)
order by created_at, token_id
