-- How many uploads per day, in my own time zone?
-- Variables: partner_id, since; the days are cut in kaltura.time_zone, a setting of the session
with created as (
    select
        day,
        time_zone,
        sum(started) as started,
        sum(succeeded) as succeeded,
        bool_and(is_mature) as is_mature,
        sum(bytes_received) as bytes_received
    from upload_outcome_daily
    where partner_id = :partner_id and day >= cast(:'since' as date)
    group by day, time_zone
),

arrived as (
    select
        day,
        time_zone,
        bytes
    from upload_bytes_daily
    where partner_id = :partner_id and day >= cast(:'since' as date) and bytes > 0
)

select
    day,
    time_zone,
    coalesce(created.started, 0) as started,
    coalesce(created.succeeded, 0) as succeeded,
    created.is_mature,
    round(coalesce(created.bytes_received, 0) / 1e9, 2) as gb_received_of_these,
    -- NULL: what arrived by then has been deleted (prune).
    case
        when day > cast(pruned.horizon at time zone time_zone as date) is not false
            then round(coalesce(arrived.bytes, 0) / 1e9, 2)
    end as gb_arrived_that_day
from created
full join arrived using (day, time_zone)
left join upload_token_horizon as pruned on pruned.partner_id = :partner_id
order by day
