-- Bytes that arrived each day, at least and at most; upload_outcome_daily has them by day created.
--
-- From the growth of uploaded_size_bytes between two versions of a token: it arrived after the
-- last published walk that saw the size before (or created_at), and not after updated_at or the
-- reply that showed the size after.  Only walks that read everything, or all open tokens, without any
-- hole count for that.  While every run leaves one, even in a second that no upload shares, the bounds
-- reach back to the run that published the size before, and are wide.  What only tokens held that no
-- run saw is missing, and what an upload sent that began again before a run saw it.  After a pruning
-- of versions the days up to its horizon have no rows.
-- partner_id: Kaltura account (partner).
-- day: The day in time_zone; one in which no bytes can have arrived has no row.
-- bytes: Best estimate: all that grew between two versions on the day of updated_at (if that does
--   not fit: of the middle of the time in which it arrived).
-- at_least_bytes: What certainly arrived on the day.
-- at_most_bytes: What may have arrived on the day; of several days that a growth may belong to,
--   each has all of it.
-- time_zone: Zone of the days: kaltura_time_zone().
-- is_mature: Whether the figures count as final: the day had ended by sync_freshness.open_seen_at.  Only
--   what a token held that no run listed meanwhile can still change them.
create or replace view upload_bytes_daily with (security_invoker = true) as
with zone as materialized (
    select kaltura_time_zone() as name
),

-- What may have arrived over more than a day is little, and is summed up from day to day.  The rest
-- is read for each day, so that a condition on the day reaches the index.
long_part as materialized (
    select
        log.partner_id,
        cast(to_timestamp(900.0 * part.earliest) at time zone zone.name as date) as first_day,
        cast(to_timestamp(900.0 * part.latest) at time zone zone.name as date) as last_day,
        cast(to_timestamp(900.0 * part.best) at time zone zone.name as date) as best_day,
        sum(part.bytes) as bytes
    from upload_bytes_arrival_log as log
    cross join zone
    cross join lateral unnest(
        log.earliest_quarters, log.latest_quarters, log.best_quarters, log.bytes
    ) as part (earliest, latest, best, bytes)
    where log.is_long
    group by 1, 2, 3, 4
),

long_change as (
    select
        long_part.partner_id,
        change.day,
        sum(change.may_arrive) as may_arrive,
        sum(change.at_least) as at_least,
        sum(change.best) as best
    from long_part
    cross join lateral (
        values
        (
            long_part.first_day,
            long_part.bytes,
            -- A day may have 25 hours.
            case when long_part.first_day = long_part.last_day then long_part.bytes else 0 end,
            0
        ),
        (long_part.best_day, 0, 0, long_part.bytes),
        (long_part.last_day + 1, -long_part.bytes, 0, 0)
    ) as change (day, may_arrive, at_least, best)
    group by long_part.partner_id, change.day
),

long_day as (
    select
        running.partner_id,
        running.day + later as day,
        case when later = 0 then running.at_least else 0 end as at_least,
        running.at_most,
        case when later = 0 then running.best else 0 end as best
    from (
        select
            long_change.*,
            sum(long_change.may_arrive) over one_account as at_most,
            lead(long_change.day) over one_account as next_day
        from long_change
        window one_account as (partition by long_change.partner_id order by long_change.day)
    ) as running
    cross join lateral generate_series(0, running.next_day - 1 - running.day) as later
),

account as (
    select
        published.partner_id,
        -- Zones are up to 14 hours ahead of UTC, and 12 behind.
        least(short_part.first_utc_day - 1, long_part.first_day) as first_day,
        greatest(short_part.last_utc_day + 2, long_part.last_day) as last_day
    from (
        select distinct run.partner_id from sync_run as run
        where run.published_at is not null
    ) as published
    cross join lateral (
        select
            min(log.utc_day) as first_utc_day,
            max(log.utc_day) as last_utc_day
        from upload_bytes_arrival_log as log
        where log.partner_id = published.partner_id and not log.is_long
    ) as short_part
    left join (
        select
            long_part.partner_id,
            min(long_part.first_day) as first_day,
            max(long_part.last_day) as last_day
        from long_part
        group by long_part.partner_id
    ) as long_part on long_part.partner_id = published.partner_id
),

-- Days begin at a quarter of an hour in every zone.
edge as (
    select
        account.partner_id,
        account.first_day + later as day,
        cast(
            floor(
                date_part(
                    'epoch',
                    case
                        -- There are two midnights where clocks are set back to it.
                        when
                            cast(
                                (midnight.at - interval '1 hour') at time zone zone.name as date
                            ) = account.first_day + later
                            then midnight.at - interval '1 hour'
                        else midnight.at
                    end
                ) / 900
            ) as integer
        ) as quarter
    from account
    cross join zone
    cross join lateral generate_series(0, account.last_day + 1 - account.first_day) as later
    cross join lateral (
        select cast(account.first_day + later as timestamp) at time zone zone.name as at
    ) as midnight
),

-- Computed before it is joined: row-level security lets no condition on an expression reach an index.
day as materialized (
    select
        edge.partner_id,
        edge.day,
        edge.quarter as begin_quarter,
        lead(edge.quarter) over one_account as end_quarter,
        to_timestamp(900.0 * lead(edge.quarter) over one_account) as ended_at,
        date '1970-01-01' + edge.quarter / 96 - 1 as first_utc_day,
        date '1970-01-01' + lead(edge.quarter) over one_account / 96 as last_utc_day
    from edge
    window one_account as (partition by edge.partner_id order by edge.day)
)

select
    day.partner_id,
    day.day,
    cast(coalesce(short_day.best, 0) + coalesce(long_day.best, 0) as bigint) as bytes,
    cast(coalesce(short_day.at_least, 0) + coalesce(long_day.at_least, 0) as bigint)
    as at_least_bytes,
    cast(coalesce(short_day.at_most, 0) + coalesce(long_day.at_most, 0) as bigint)
    as at_most_bytes,
    zone.name as time_zone,
    (day.ended_at <= freshness.open_seen_at) is true as is_mature
from day
cross join zone
cross join lateral (
    select
        sum(part.bytes) filter (
            where part.best >= day.begin_quarter and part.best < day.end_quarter
        ) as best,
        sum(part.bytes) filter (
            where part.earliest >= day.begin_quarter and part.latest < day.end_quarter
        ) as at_least,
        sum(part.bytes) as at_most
    from upload_bytes_arrival_log as log
    cross join lateral unnest(
        log.earliest_quarters, log.latest_quarters, log.best_quarters, log.bytes
    ) as part (earliest, latest, best, bytes)
    where
        log.partner_id = day.partner_id
        and not log.is_long
        and log.utc_day >= day.first_utc_day
        and log.utc_day <= day.last_utc_day
        and part.earliest < day.end_quarter
        and part.latest >= day.begin_quarter
) as short_day
left join long_day on long_day.partner_id = day.partner_id and long_day.day = day.day
left join sync_freshness as freshness on freshness.partner_id = day.partner_id
left join upload_token_horizon as pruned on pruned.partner_id = day.partner_id
where
    coalesce(short_day.at_most, 0) + coalesce(long_day.at_most, 0) > 0
    and (
        pruned.horizon is null
        or day.day > cast(pruned.horizon at time zone zone.name as date)
    )
