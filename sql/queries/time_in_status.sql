-- How long do uploads stay in each status?
-- Variables: partner_id, since
select
    upload_token_status_name(status_code) as status,
    count(*) as passed,
    count(*) filter (where seen) as seen,
    make_interval(
        secs => percentile_cont(0.5) within group (order by at_least_seconds)
    ) as median_at_least,
    make_interval(
        secs => percentile_cont(0.5) within group (order by at_most_seconds)
    ) as median_at_most,
    make_interval(
        secs => percentile_cont(0.5) within group (order by estimated_at_most_seconds)
    ) as median_estimated
from upload_status_duration
where
    partner_id = :partner_id
    and created_at >= cast(:'since' as timestamptz)
    and not is_current
    and status_code in (0, 1, 2)
group by status_code
order by status_code
