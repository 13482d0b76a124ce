-- The users with most uploads, and the number of users.
--
-- As upload_user_summary, but computed only for the users shown: sorting the durations of a
-- million uploads by user is the expensive part.
with busiest as (
    select
        user_id,
        count(*) as uploads,
        count(*) over () as total
    from upload_token
    where partner_id = %(partner_id)s
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
        -- NULL becomes a value, so that a hash join finds uploads without a user too.
        and coalesce(upload.user_id, '') = coalesce(busiest.user_id, '')
        and (upload.user_id is null) = (busiest.user_id is null)
group by busiest.user_id, busiest.uploads, busiest.total
order by busiest.uploads desc, busiest.user_id;
