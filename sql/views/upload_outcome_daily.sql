-- Uploads by day of creation and size: how many ended how, bytes, and time to complete.
--
-- A day without uploads of a size has no row.  What the outcomes mean is said in upload_outcome;
-- started is the sum of the five.
-- partner_id: Kaltura account (partner).
-- day: Day of created_at in time_zone.
-- size_bucket: By the size announced: see upload_outcome.
-- size_bucket_order: 1 to 7, to sort the buckets by.
-- started: Tokens created on the day.
-- succeeded: Of these, those that were CLOSED at any time.
-- failed: TIMED_OUT or ERROR when last seen.
-- abandoned: Open, and last moved more than 7 days before sync_freshness.open_seen_at.
-- deleted: DELETED or no longer listed, without having succeeded or failed.
-- still_open: All others.
-- bytes_announced: Sum of the sizes announced of the tokens created on the day, in bytes; those not
--   known are left out.
-- bytes_received: Sum of the bytes received so far of the tokens created on the day, whenever they
--   arrived: not the bytes that arrived on the day.
-- p50_seconds_to_complete: Median of upload_outcome.seconds_to_complete, interpolated; NULL if none.
-- p95_seconds_to_complete: Its 95th percentile, interpolated; NULL if none.
-- time_zone: Zone of the days: kaltura_time_zone().
-- is_mature: Whether the figures of the row count as final: the day had ended by
--   sync_freshness.open_seen_at, and upload_outcome.is_mature holds for each of its tokens.  Before
--   that a day looks better than it is: no upload has been abandoned yet, slow ones have not ended.
create or replace view upload_outcome_daily with (security_invoker = true) as
with zone as materialized (
    select kaltura_time_zone() as name
),

-- A condition on day is applied to these, and the tokens of each day are found by created_at.  The
-- bounds are wide, because an hour before midnight may occur twice.
calendar as materialized (
    select
        days.day,
        zone.name as time_zone,
        cast(days.day as timestamp) at time zone zone.name - interval '3 hours' as lower_at,
        cast(days.day + 1 as timestamp) at time zone zone.name + interval '3 hours' as upper_at,
        cast(days.day + 1 as timestamp) at time zone zone.name as ends_at
    from zone
    cross join lateral (
        select
            cast(min(token.created_at) at time zone zone.name as date) as first_day,
            cast(max(token.created_at) at time zone zone.name as date) as last_day
        from upload_token as token
    ) as known
    cross join lateral (
        select known.first_day + later as day
        from generate_series(0, known.last_day - known.first_day) as later
    ) as days
)

select
    daily.partner_id,
    daily.day,
    upload_size_bucket(daily.size_bucket_order) as size_bucket,
    daily.size_bucket_order,
    cast(sum(daily.uploads) as bigint) as started,
    cast(coalesce(sum(daily.uploads) filter (where daily.outcome = 'succeeded'), 0) as bigint)
    as succeeded,
    cast(coalesce(sum(daily.uploads) filter (where daily.outcome = 'failed'), 0) as bigint)
    as failed,
    cast(coalesce(sum(daily.uploads) filter (where daily.outcome = 'abandoned'), 0) as bigint)
    as abandoned,
    cast(coalesce(sum(daily.uploads) filter (where daily.outcome = 'deleted'), 0) as bigint)
    as deleted,
    cast(coalesce(sum(daily.uploads) filter (where daily.outcome = 'still_open'), 0) as bigint)
    as still_open,
    sum(daily.bytes_announced) as bytes_announced,
    sum(daily.bytes_received) as bytes_received,
    -- Only those that succeeded have seconds_to_complete.
    max(daily.percentiles[1]) as p50_seconds_to_complete,
    max(daily.percentiles[2]) as p95_seconds_to_complete,
    daily.time_zone,
    bool_and(daily.is_mature and daily.ends_at <= freshness.open_seen_at) is true as is_mature
from (
    select
        outcome.partner_id,
        calendar.day,
        calendar.time_zone,
        calendar.ends_at,
        outcome.size_bucket_order,
        -- So the outcome is computed once per token.
        outcome.outcome,
        count(*) as uploads,
        coalesce(sum(outcome.file_size_bytes) filter (where outcome.file_size_bytes > 0), 0)
        as bytes_announced,
        coalesce(sum(outcome.uploaded_size_bytes) filter (where outcome.uploaded_size_bytes > 0), 0)
        as bytes_received,
        percentile_cont(array[0.5, 0.95]) within group (order by outcome.seconds_to_complete)
        as percentiles,
        bool_and(outcome.is_mature) as is_mature
    from calendar
    inner join upload_outcome as outcome
        on
            outcome.created_at >= calendar.lower_at
            and outcome.created_at < calendar.upper_at
            and cast(outcome.created_at at time zone calendar.time_zone as date) = calendar.day
    group by
        outcome.partner_id,
        calendar.day,
        calendar.time_zone,
        calendar.ends_at,
        outcome.size_bucket_order,
        outcome.outcome
) as daily
left join sync_freshness as freshness on freshness.partner_id = daily.partner_id
group by daily.partner_id, daily.day, daily.size_bucket_order, daily.time_zone
