-- At which hour of the day are files uploaded, and when do uploads fail?
-- Variables: partner_id, since; the hours are those of kaltura.time_zone, a setting of the session
with upload as (
    select
        outcome,
        seconds_to_complete,
        extract(hour from created_at at time zone kaltura_time_zone()) as hour
    from upload_outcome
    where partner_id = :partner_id and created_at >= cast(:'since' as timestamptz)
)

select
    hour,
    count(*) as started,
    count(*) filter (where outcome = 'succeeded') as succeeded,
    count(*) filter (where outcome = 'failed') as failed,
    make_interval(
        secs => percentile_cont(0.5) within group (order by seconds_to_complete)
    ) as median
from upload
group by hour
order by hour
