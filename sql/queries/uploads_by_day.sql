-- How many uploads per day, in my own time zone?
-- Variables: partner_id, since; the days are cut in kaltura.time_zone, a setting of the session
select
    day,
    time_zone,
    sum(started) as started,
    sum(succeeded) as succeeded,
    round(sum(bytes_received) / 1e9, 2) as gb_received
from upload_outcome_daily
where partner_id = :partner_id and day >= cast(:'since' as date)
group by day, time_zone
order by day
