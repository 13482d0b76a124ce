-- first_closed_at is the least updated_at of the versions with status CLOSED.
select
    token.partner_id,
    token.token_id,
    token.first_closed_at,
    derived.first_closed_at as derived_first_closed_at
from upload_token as token
join (
    select
        every.partner_id,
        every.token_id,
        min(every.updated_at) filter (where every.status = 3) as first_closed_at,
        min(every.version) as first_version
    from upload_token_history as every
    group by every.partner_id, every.token_id
) as derived
    on derived.partner_id = token.partner_id and derived.token_id = token.token_id
where
    token.first_closed_at is distinct from derived.first_closed_at
    -- A version that has been pruned may have told an earlier moment.
    and (
        derived.first_version = 1
        or token.first_closed_at is null
        or token.first_closed_at > derived.first_closed_at
    )
