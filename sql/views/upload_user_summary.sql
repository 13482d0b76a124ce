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
    upload.partner_id,
    upload.user_id,
    count(*) as uploads,
    count(*) filter (where upload.outcome = 'succeeded') as succeeded,
    count(*) filter (where upload.outcome = 'failed') as failed,
    count(*) filter (where upload.outcome = 'abandoned') as abandoned,
    count(*) filter (where upload.outcome = 'still_open') as still_open,
    count(*) filter (where upload.outcome = 'deleted') as deleted,
    coalesce(sum(upload.uploaded_size_bytes) filter (where upload.uploaded_size_bytes > 0), 0)
    as bytes_received,
    min(upload.created_at) as first_upload_at,
    max(upload.created_at) as last_upload_at,
    percentile_cont(0.5) within group (order by upload.seconds_to_complete)
    as median_seconds_to_complete
from (
    select
        outcome.partner_id,
        outcome.user_id,
        outcome.outcome,
        outcome.uploaded_size_bytes,
        outcome.created_at,
        outcome.seconds_to_complete
    from upload_outcome as outcome
    -- Prevents the outcome from being computed once per column that counts it.
    offset 0
) as upload
group by upload.partner_id, upload.user_id
