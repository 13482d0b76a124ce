-- Time to complete, by size
-- Display: bar; X: `size_bucket`; Y: `median_minutes`, `p95_minutes`
-- Variables: partner_id (number, required), since (date)
select
    size_bucket,
    count(*) as completed,
    round(
        cast(percentile_cont(0.5) within group (order by seconds_to_complete) / 60 as numeric), 1
    ) as median_minutes,
    round(
        cast(percentile_cont(0.95) within group (order by seconds_to_complete) / 60 as numeric), 1
    ) as p95_minutes
from kaltura.upload_outcome
where
    partner_id = {{partner_id}}
    and seconds_to_complete is not null
    [[and created_at >= {{since}}]]
group by size_bucket, size_bucket_order
order by size_bucket_order
