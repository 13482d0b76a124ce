-- Which files did the same user upload again, after an upload that had not succeeded?
-- Variables: partner_id, since
with attempt as (
    select
        token_id,
        user_id,
        file_name,
        created_at,
        outcome,
        lag(outcome) over same_file as outcome_before,
        created_at - lag(created_at) over same_file as after
    from upload_outcome
    where
        partner_id = :partner_id
        and created_at >= cast(:'since' as timestamptz) - interval '7 days'
        and user_id is not null
        and file_name is not null
    window same_file as (
        partition by user_id, file_name, file_size_bytes
        order by created_at, token_id
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
