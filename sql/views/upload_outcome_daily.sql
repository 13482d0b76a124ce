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
-- bytes_announced: Sum of the sizes announced, in bytes; those not known are left out.
-- bytes_received: Sum of the bytes received.
-- p50_seconds_to_complete: Median of upload_outcome.seconds_to_complete, interpolated; NULL if none.
-- p95_seconds_to_complete: Its 95th percentile, interpolated; NULL if none.
-- time_zone: Zone of the days: kaltura_time_zone().
create or replace view upload_outcome_daily with (security_invoker = true) as
with zone as materialized (
    select kaltura_time_zone() as name
)

select
    daily.partner_id,
    daily.day,
    upload_size_bucket(daily.size_bucket_order) as size_bucket,
    daily.size_bucket_order,
    daily.started,
    daily.succeeded,
    daily.failed,
    daily.abandoned,
    daily.deleted,
    daily.still_open,
    daily.bytes_announced,
    daily.bytes_received,
    daily.percentiles[1] as p50_seconds_to_complete,
    daily.percentiles[2] as p95_seconds_to_complete,
    zone.name as time_zone
from (
    select
        upload.partner_id,
        upload.day,
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
        percentile_cont(array[0.5, 0.95]) within group (order by upload.seconds_to_complete)
        as percentiles
    from (
        select
            outcome.partner_id,
            outcome.size_bucket_order,
            outcome.outcome,
            outcome.file_size_bytes,
            outcome.uploaded_size_bytes,
            outcome.seconds_to_complete,
            cast(outcome.created_at at time zone zone.name as date) as day
        from upload_outcome as outcome
        cross join zone
        -- Prevents the outcome from being computed once per column that counts it.
        offset 0
    ) as upload
    group by upload.partner_id, upload.day, upload.size_bucket_order
) as daily
cross join zone
