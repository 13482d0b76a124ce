-- Uploads by day of creation, and by day and size: size_bucket is NULL in the rows by day.
--
-- closed_in_time: closed within 24 hours of creation, out of old_enough: those whose 24 hours were
-- over when all open uploads were last read.  is_mature: no later day can change the figures.
with upload as (
    select
        outcome.*,
        cast(outcome.created_at at time zone %(time_zone)s as date) as day,
        outcome.created_at <= cast(%(open_seen_at)s as timestamptz) - interval '24 hours'
        as is_old_enough
    from upload_outcome as outcome
    where
        outcome.partner_id = %(partner_id)s
        and outcome.created_at >= cast(%(first_day)s as timestamp) at time zone %(time_zone)s
        and outcome.created_at < cast(%(day_after)s as timestamp) at time zone %(time_zone)s
)

select
    day,
    size_bucket,
    size_bucket_order,
    count(*) as started,
    count(*) filter (where outcome = 'succeeded') as succeeded,
    count(*) filter (where outcome = 'still_open') as still_open,
    count(*) filter (where outcome = 'failed') as failed,
    count(*) filter (where outcome = 'abandoned') as abandoned,
    count(*) filter (where outcome = 'deleted') as deleted,
    sum(uploaded_size_bytes) filter (where uploaded_size_bytes > 0) as bytes_received,
    count(seconds_to_complete) as completed,
    percentile_cont(0.5) within group (order by seconds_to_complete) as p50_seconds,
    percentile_cont(0.95) within group (order by seconds_to_complete) as p95_seconds,
    count(*) filter (where is_old_enough) as old_enough,
    count(*) filter (where is_old_enough and seconds_to_complete <= 86400) as closed_in_time,
    coalesce(bool_and(is_mature), false)
    and cast(day + 1 as timestamp) at time zone %(time_zone)s
    <= cast(%(open_seen_at)s as timestamptz) as is_mature
from upload
group by grouping sets ((day), (day, size_bucket_order, size_bucket))
order by day, size_bucket_order nulls first;
