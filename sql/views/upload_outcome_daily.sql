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
        midnight.after_it <= account.open_seen_at as is_over,
        clock.is_even,
        midnight.before_it - clock.margin as lower_at,
        midnight.after_it + clock.margin as upper_at
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
    cross join lateral (
        select
            cast(days.day as timestamp) at time zone zone.name as before_it,
            cast(days.day + 1 as timestamp) at time zone zone.name as after_it
    ) as midnight
    -- Mostly the clocks go on evenly, and a day is what lies between its midnights.  If they are
    -- changed near it, each token is asked, because an hour before midnight may occur twice.
    cross join lateral (
        select
            turned.is_even,
            case when turned.is_even then interval '0' else interval '3 hours' end as margin
        from (
            select
                (midnight.after_it + interval '3 hours') at time zone zone.name
                - (midnight.before_it - interval '3 hours') at time zone zone.name
                = midnight.after_it - midnight.before_it + interval '6 hours' as is_even
        ) as turned
    ) as clock
)

select
    calendar.partner_id,
    calendar.day,
    upload_size_bucket(ended.size_bucket_order) as size_bucket,
    ended.size_bucket_order,
    ended.started,
    ended.succeeded,
    ended.failed,
    ended.abandoned,
    ended.deleted,
    ended.still_open,
    ended.bytes_announced,
    ended.bytes_received,
    ended.percentiles[1] as p50_seconds_to_complete,
    ended.percentiles[2] as p95_seconds_to_complete,
    calendar.time_zone,
    (ended.is_mature and calendar.is_over) is true as is_mature
from calendar
cross join lateral (
    select
        upload.size_bucket_order,
        count(*) as started,
        count(*) filter (where upload.outcome = 'succeeded') as succeeded,
        count(*) filter (where upload.outcome = 'failed') as failed,
        count(*) filter (where upload.outcome = 'abandoned') as abandoned,
        count(*) filter (where upload.outcome = 'deleted') as deleted,
        count(*) filter (where upload.outcome = 'still_open') as still_open,
        coalesce(sum(upload.file_size_bytes) filter (where upload.file_size_bytes > 0), 0)
        as bytes_announced,
        coalesce(sum(upload.uploaded_size_bytes) filter (where upload.uploaded_size_bytes > 0), 0)
        as bytes_received,
        -- Only those that succeeded have seconds_to_complete.
        percentile_cont(array[0.5, 0.95]) within group (order by upload.seconds_to_complete)
        as percentiles,
        bool_and(upload.is_mature) as is_mature
    from (
        select
            outcome.size_bucket_order,
            outcome.outcome,
            outcome.file_size_bytes,
            outcome.uploaded_size_bytes,
            outcome.seconds_to_complete,
            outcome.is_mature
        from upload_outcome as outcome
        where
            outcome.partner_id = calendar.partner_id
            and outcome.created_at >= calendar.lower_at
            and outcome.created_at < calendar.upper_at
            and (
                calendar.is_even
                or cast(outcome.created_at at time zone calendar.time_zone as date) = calendar.day
            )
        -- So the outcome is computed once per token.
        offset 0
    ) as upload
    group by upload.size_bucket_order
) as ended
