-- Uploads of each user: how many ended how, bytes, first and last, and median time to complete.
--
-- What the outcomes mean is said in upload_outcome; uploads is the sum of the five.
-- partner_id: Kaltura account (partner).
-- user_id: Kaltura user; NULL for tokens without one.
-- uploads: Tokens of the user.
-- succeeded: Of these, those that were CLOSED at any time.
-- failed: TIMED_OUT or ERROR when last seen.
-- abandoned: Open, and last moved more than 7 days before sync_freshness.open_seen_at.
-- still_open: All others.
-- deleted: DELETED or no longer listed, without having succeeded or failed.
-- bytes_received: Sum of the bytes received.
-- first_upload_at: created_at of the first token.
-- last_upload_at: created_at of the last token.
-- median_seconds_to_complete: Median of upload_outcome.seconds_to_complete; NULL if none.
create or replace view upload_user_summary with (security_invoker = true) as
select
    ended.partner_id,
    ended.user_id,
    cast(sum(ended.uploads) as bigint) as uploads,
    cast(coalesce(sum(ended.uploads) filter (where ended.outcome = 'succeeded'), 0) as bigint)
    as succeeded,
    cast(coalesce(sum(ended.uploads) filter (where ended.outcome = 'failed'), 0) as bigint)
    as failed,
    cast(coalesce(sum(ended.uploads) filter (where ended.outcome = 'abandoned'), 0) as bigint)
    as abandoned,
    cast(coalesce(sum(ended.uploads) filter (where ended.outcome = 'still_open'), 0) as bigint)
    as still_open,
    cast(coalesce(sum(ended.uploads) filter (where ended.outcome = 'deleted'), 0) as bigint)
    as deleted,
    sum(ended.bytes_received) as bytes_received,
    min(ended.first_upload_at) as first_upload_at,
    max(ended.last_upload_at) as last_upload_at,
    -- Only those that succeeded have seconds_to_complete.
    max(ended.median_seconds) as median_seconds_to_complete
from (
    select
        upload.partner_id,
        upload.user_id,
        -- So the outcome is computed once per token.
        upload.outcome,
        count(*) as uploads,
        coalesce(
            sum(upload.uploaded_size_bytes) filter (where upload.uploaded_size_bytes > 0), 0
        ) as bytes_received,
        min(upload.created_at) as first_upload_at,
        max(upload.created_at) as last_upload_at,
        percentile_cont(0.5) within group (order by upload.seconds_to_complete) as median_seconds
    from upload_outcome as upload
    group by upload.partner_id, upload.user_id, upload.outcome
) as ended
group by ended.partner_id, ended.user_id
