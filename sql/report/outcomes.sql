-- Uploads created in the days shown, by day and by size: day is NULL in the rows by size.
select
    cast(created_at at time zone %(time_zone)s as date) as day,
    size_bucket,
    count(*) as started,
    count(*) filter (where outcome = 'succeeded') as succeeded,
    count(*) filter (where outcome = 'still_open') as still_open,
    count(*) filter (where outcome = 'failed') as failed,
    count(*) filter (where outcome = 'abandoned') as abandoned,
    count(*) filter (where outcome = 'deleted') as deleted,
    sum(uploaded_size_bytes) filter (where uploaded_size_bytes > 0) as bytes_received,
    count(seconds_to_complete) as completed,
    percentile_cont(0.5) within group (order by seconds_to_complete) as p50_seconds,
    percentile_cont(0.95) within group (order by seconds_to_complete) as p95_seconds
from upload_outcome
where
    partner_id = %(partner_id)s
    and created_at >= cast(%(first_day)s as timestamp) at time zone %(time_zone)s
    and created_at < cast(%(day_after)s as timestamp) at time zone %(time_zone)s
group by grouping sets ((1), (size_bucket_order, size_bucket))
order by day, size_bucket_order;
