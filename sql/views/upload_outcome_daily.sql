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

-- A condition on partner_id and day is applied to these, before the tokens of each day are read.
calendar as materialized (
    select
        account.partner_id,
        days.day,
        zone.name as time_zone,
        -- Wide, because an hour before midnight may occur twice.
        cast(days.day as timestamp) at time zone zone.name - interval '3 hours' as lower_at,
        cast(days.day + 1 as timestamp) at time zone zone.name + interval '3 hours' as upper_at,
        cast(days.day + 1 as timestamp) at time zone zone.name <= account.open_seen_at as is_over
    from zone
    cross join sync_freshness as account
    cross join lateral (
        select
            cast(min(made.first_at) at time zone zone.name as date) as first_day,
            cast(max(made.last_at) at time zone zone.name as date) as last_day
        from (
            select
                min(present.created_at) as first_at,
                max(present.created_at) as last_at
            from upload_token as present
            where present.partner_id = account.partner_id and present.is_listed
            union all
            select
                min(gone.created_at) as first_at,
                max(gone.created_at) as last_at
            from upload_token as gone
            where gone.partner_id = account.partner_id and not gone.is_listed
        ) as made
    ) as known
    cross join lateral (
        select known.first_day + later as day
        from generate_series(0, known.last_day - known.first_day) as later
    ) as days
)

select
    calendar.partner_id,
    calendar.day,
    upload_size_bucket(ended.size_bucket_order) as size_bucket,
    ended.size_bucket_order,
    cast(sum(ended.uploads) as bigint) as started,
    cast(coalesce(sum(ended.uploads) filter (where ended.outcome = 'succeeded'), 0) as bigint)
    as succeeded,
    cast(coalesce(sum(ended.uploads) filter (where ended.outcome = 'failed'), 0) as bigint)
    as failed,
    cast(coalesce(sum(ended.uploads) filter (where ended.outcome = 'abandoned'), 0) as bigint)
    as abandoned,
    cast(coalesce(sum(ended.uploads) filter (where ended.outcome = 'deleted'), 0) as bigint)
    as deleted,
    cast(coalesce(sum(ended.uploads) filter (where ended.outcome = 'still_open'), 0) as bigint)
    as still_open,
    sum(ended.bytes_announced) as bytes_announced,
    sum(ended.bytes_received) as bytes_received,
    -- Only those that succeeded have seconds_to_complete.
    max(ended.percentiles[1]) as p50_seconds_to_complete,
    max(ended.percentiles[2]) as p95_seconds_to_complete,
    calendar.time_zone,
    bool_and(ended.is_mature and calendar.is_over) is true as is_mature
from calendar
cross join lateral (
    select
        upload.size_bucket_order,
        -- So the outcome is computed once per token.
        upload.outcome,
        count(*) as uploads,
        coalesce(sum(upload.file_size_bytes) filter (where upload.file_size_bytes > 0), 0)
        as bytes_announced,
        coalesce(sum(upload.uploaded_size_bytes) filter (where upload.uploaded_size_bytes > 0), 0)
        as bytes_received,
        percentile_cont(array[0.5, 0.95]) within group (order by upload.seconds_to_complete)
        as percentiles,
        bool_and(upload.is_mature) as is_mature
    from upload_outcome as upload
    where
        upload.partner_id = calendar.partner_id
        and upload.created_at >= calendar.lower_at
        and upload.created_at < calendar.upper_at
        and cast(upload.created_at at time zone calendar.time_zone as date) = calendar.day
    group by upload.size_bucket_order, upload.outcome
) as ended
group by calendar.partner_id, calendar.day, ended.size_bucket_order, calendar.time_zone
