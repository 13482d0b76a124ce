-- How long do uploads take, by size?
-- Variables: partner_id, since
select
    size_bucket,
    count(*) as completed,
    make_interval(
        secs => percentile_cont(0.5) within group (order by seconds_to_complete)
    ) as median,
    make_interval(
        secs => percentile_cont(0.95) within group (order by seconds_to_complete)
    ) as p95,
    make_interval(secs => max(seconds_to_complete)) as longest
from upload_outcome
where
    partner_id = :partner_id
    and created_at >= cast(:'since' as timestamptz)
    and seconds_to_complete is not null
group by size_bucket, size_bucket_order
order by size_bucket_order
