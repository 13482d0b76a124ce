-- In which status is a new token first seen?
-- Variables: partner_id, since
with first_seen as (
    select
        to_status as first_status,
        to_status_code,
        date_part('epoch', happened_before - happened_after) as age
    from upload_token_status_history
    where
        partner_id = :partner_id
        and change_kind = 'first_seen'
        and happened_after >= cast(:'since' as timestamptz)
    union all
    -- How it was first seen has been deleted (prune).
    select
        '(pruned)' as first_status,
        null as to_status_code,
        null as age
    from upload_token_horizon as pruned
    inner join upload_token as token on pruned.partner_id = token.partner_id
    where
        pruned.partner_id = :partner_id
        and token.created_at >= cast(:'since' as timestamptz)
        and token.version > 1
        and not exists (
            select 1 from upload_token_superseded as sighting
            where
                sighting.partner_id = token.partner_id
                and sighting.token_id = token.token_id
                and sighting.version = 1
        )
)

select
    first_status,
    count(*) as tokens,
    round(100.0 * count(*) / sum(count(*)) over (), 1) as percent,
    make_interval(secs => percentile_cont(0.5) within group (order by age)) as median_age
from first_seen
group by first_status, to_status_code
order by to_status_code, first_status desc
