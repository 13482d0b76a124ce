-- Tells first_closed_at and first_happened_at of the latest versions published without them.
update upload_token as latest
set first_closed_at = told.first_closed_at, first_happened_at = told.first_happened_at
from (
    select
        token.partner_id,
        token.token_id,
        closed.first_closed_at,
        moment.happened_at as first_happened_at
    from upload_token as token
    left join (
        select
            every.partner_id,
            every.token_id,
            min(every.updated_at) as first_closed_at
        from upload_token_history as every
        where every.status = 3
        group by every.partner_id, every.token_id
    ) as closed on closed.partner_id = token.partner_id and closed.token_id = token.token_id
    left join upload_token_status_moment as moment
        on
            moment.partner_id = token.partner_id
            and moment.token_id = token.token_id
            and moment.version = 1
            and token.version = 1
) as told
where
    told.partner_id = latest.partner_id
    and told.token_id = latest.token_id
    and (told.first_closed_at, told.first_happened_at)
    is distinct from (latest.first_closed_at, latest.first_happened_at)
