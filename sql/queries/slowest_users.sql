-- Whose uploads take longest, and is it the file size or the connection?
-- Variables: partner_id, since
select
    upload.user_id,
    count(*) as completed,
    make_interval(
        secs => percentile_cont(0.5) within group (order by upload.seconds_to_complete)
    ) as median,
    round(avg(upload.uploaded_size_bytes) / 1e6) as average_mb,
    round(
        cast(
            percentile_cont(0.5) within group (
                order by upload.uploaded_size_bytes / 1e6 / nullif(upload.seconds_to_complete, 0)
            ) as numeric
        ),
        2
    ) as median_mb_per_second
from upload_outcome as upload
where
    upload.partner_id = :partner_id
    and upload.created_at >= cast(:'since' as timestamptz)
    and upload.seconds_to_complete is not null
group by upload.user_id
having count(*) >= 5
order by median desc, upload.user_id
limit 20
