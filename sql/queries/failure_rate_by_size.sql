-- Do large uploads fail more often?
-- Variables: partner_id, since
select
    size_bucket,
    sum(started) as started,
    sum(started - still_open) as ended,
    sum(failed) as failed,
    sum(abandoned) as abandoned,
    sum(deleted) as deleted,
    round(
        100.0 * sum(failed + abandoned + deleted)
        / nullif(sum(started - still_open), 0),
        1
    ) as percent_lost
from upload_outcome_daily
where partner_id = :partner_id and day >= cast(:'since' as date)
group by size_bucket, size_bucket_order
order by size_bucket_order
