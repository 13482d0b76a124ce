-- How many tokens were in which status at the end of each day, as the warehouse knew then.
--
-- From the day of the first publication to today (so far), days without a run too.  A status that
-- no token was in has no row.  Equal to upload_token_as_of() just before the midnight that ends
-- the day.
-- partner_id: Kaltura account (partner).
-- day: The day in time_zone.
-- status: Name of the status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED for those no longer listed.
-- status_code: Its code; NULL for NOT_LISTED and UNKNOWN.
-- tokens: Number of tokens at the end of the day.
-- time_zone: Zone of the days: kaltura_time_zone().
create or replace view upload_token_daily_status with (security_invoker = true) as
with zone as materialized (
    select kaltura_time_zone() as name
),

-- Few rows: the timestamps of all versions are those of the runs.
moved as (
    select
        known.partner_id,
        known.is_listed,
        case when known.is_listed then known.status end as status_code,
        known.valid_from as moved_at,
        count(*) as tokens
    from upload_token_history as known
    group by 1, 2, 3, 4
    union all
    select
        known.partner_id,
        known.is_listed,
        case when known.is_listed then known.status end as status_code,
        known.valid_to as moved_at,
        -count(*) as tokens
    from upload_token_superseded as known
    group by 1, 2, 3, 4
),

moved_by_day as (
    select
        moved.partner_id,
        moved.is_listed,
        moved.status_code,
        cast(moved.moved_at at time zone zone.name as date) as day,
        sum(moved.tokens) as tokens
    from moved
    cross join zone
    group by 1, 2, 3, 4
),

counted as (
    select
        moved_by_day.partner_id,
        moved_by_day.is_listed,
        moved_by_day.status_code,
        moved_by_day.day as first_day,
        cast(sum(moved_by_day.tokens) over one_status as bigint) as tokens,
        lead(moved_by_day.day) over one_status as next_day,
        max(moved_by_day.day) over (partition by moved_by_day.partner_id) as last_day
    from moved_by_day
    window one_status as (
        partition by moved_by_day.partner_id, moved_by_day.is_listed, moved_by_day.status_code
        order by moved_by_day.day
    )
)

select
    counted.partner_id,
    counted.first_day + later as day,
    case
        when counted.is_listed
            then coalesce(status.name, 'UNKNOWN_' || counted.status_code, 'UNKNOWN')
        else 'NOT_LISTED'
    end as status,
    counted.status_code,
    counted.tokens,
    zone.name as time_zone
from counted
cross join zone
-- Until the next day on which the number changes, otherwise until today.
cross join lateral generate_series(
    0,
    coalesce(
        counted.next_day - 1,
        greatest(counted.last_day, cast(now() at time zone zone.name as date))
    ) - counted.first_day
) as later
left join upload_token_status as status on status.code = counted.status_code
where counted.tokens > 0
