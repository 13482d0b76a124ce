-- How do the accounts compare?
-- Variables: since
with upload as (
    select
        partner_id,
        count(*) as started,
        count(*) filter (where outcome <> 'still_open') as ended,
        count(*) filter (where outcome = 'succeeded') as succeeded,
        count(*) filter (where outcome = 'failed') as failed,
        percentile_cont(0.5) within group (order by seconds_to_complete) as median_seconds
    from upload_outcome
    where created_at >= cast(:'since' as timestamptz)
    group by partner_id
)

select
    freshness.partner_id,
    freshness.last_complete_at,
    coalesce(upload.started, 0) as started,
    round(100.0 * upload.succeeded / nullif(upload.ended, 0), 1) as percent_succeeded,
    round(100.0 * upload.failed / nullif(upload.ended, 0), 1) as percent_failed,
    make_interval(secs => upload.median_seconds) as median,
    -- NULL: no run has read all open uploads.
    case
        when freshness.open_seen_at is not null
            then (
                select count(*) from stuck_upload as stuck
                where stuck.partner_id = freshness.partner_id
            )
    end as stuck
from sync_freshness as freshness
left join upload on freshness.partner_id = upload.partner_id
order by freshness.partner_id
