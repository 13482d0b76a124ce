-- Puts the estimates of each token's changes in order, as publishing does: one after the other.
with recursive every as (
    select
        logged.partner_id,
        logged.token_id,
        logged.version,
        logged.from_happened_at,
        logged.happened_at,
        logged.happened_before
    from upload_token_status_moment_log as logged
    union all
    select
        earlier.partner_id,
        earlier.token_id,
        earlier.version,
        cast(null as timestamptz) as from_happened_at,
        earlier.first_happened_at as happened_at,
        earlier.observed_at as happened_before
    from upload_token_superseded as earlier
    where earlier.version = 1
),

numbered as (
    select
        every.*,
        row_number() over one_token as number,
        lag(every.happened_at, 1, every.from_happened_at) over one_token as not_before
    from every
    window one_token as (
        partition by every.partner_id, every.token_id
        order by every.version
    )
),

-- Of the few tokens that have some out of order.
chosen as (
    select moment.*
    from numbered as moment
    where
        exists (
            select 1 from numbered as early
            where
                early.partner_id = moment.partner_id
                and early.token_id = moment.token_id
                and early.happened_at < early.not_before
        )
),

put as (
    select
        first_one.partner_id,
        first_one.token_id,
        first_one.version,
        first_one.number,
        least(
            greatest(first_one.happened_at, first_one.from_happened_at), first_one.happened_before
        ) as happened_at
    from chosen as first_one
    where first_one.number = 1
    union all
    select
        next_one.partner_id,
        next_one.token_id,
        next_one.version,
        next_one.number,
        least(greatest(next_one.happened_at, put.happened_at), next_one.happened_before)
        as happened_at
    from put
    inner join chosen as next_one
        on
            next_one.partner_id = put.partner_id
            and next_one.token_id = put.token_id
            and next_one.number = put.number + 1
)

update upload_token_status_moment_log as moment
set happened_at = put.happened_at
from put
where
    put.partner_id = moment.partner_id
    and put.token_id = moment.token_id
    and put.version = moment.version
    and put.happened_at <> moment.happened_at
