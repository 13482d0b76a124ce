-- Which nights had no complete run, and why?
-- Variables: since, now
select
    partner_id,
    day,
    outcome,
    runs,
    error_kind,
    last_attempt_at,
    made_good_at
from (
    select
        *,
        min(complete_at) over (
            partition by partner_id
            order by day
            rows between 1 following and unbounded following
        ) as made_good_at
    from sync_night
) as night
where
    outcome <> 'complete'
    and day >= cast(:'since' as date)
    and day < cast(
        cast(:'now' as timestamptz) at time zone kaltura_time_zone() as date
    )
order by day, partner_id
