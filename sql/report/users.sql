-- The users with most uploads of the days shown, and the number of users.
--
-- The durations are sorted only of the users shown: for all users that is the expensive part.
with busiest as (
    select
        user_id,
        count(*) as uploads,
        count(*) over () as total
    from upload_outcome
    where
        partner_id = %(partner_id)s
        and created_at >= cast(%(first_day)s as timestamp) at time zone %(time_zone)s
        and created_at < cast(%(day_after)s as timestamp) at time zone %(time_zone)s
    group by user_id
    order by uploads desc, user_id
    limit %(rows)s
)

select
    busiest.user_id,
    busiest.uploads,
    busiest.total,
    count(*) filter (where upload.outcome = 'succeeded') as succeeded,
    count(*) filter (where upload.outcome = 'failed') as failed,
    count(*) filter (where upload.outcome = 'abandoned') as abandoned,
    coalesce(sum(upload.uploaded_size_bytes) filter (where upload.uploaded_size_bytes > 0), 0)
        as bytes_received,
    max(upload.created_at) as last_upload_at,
    percentile_cont(0.5) within group (order by upload.seconds_to_complete)
        as median_seconds_to_complete
from busiest
inner join upload_outcome as upload
    on
        upload.partner_id = %(partner_id)s
        and upload.created_at >= cast(%(first_day)s as timestamp) at time zone %(time_zone)s
        and upload.created_at < cast(%(day_after)s as timestamp) at time zone %(time_zone)s
        -- NULL becomes a value, so that a hash join finds uploads without a user too.
        and coalesce(upload.user_id, '') = coalesce(busiest.user_id, '')
        and (upload.user_id is null) = (busiest.user_id is null)
group by busiest.user_id, busiest.uploads, busiest.total
order by busiest.uploads desc, busiest.user_id;
