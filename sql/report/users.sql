-- The users with most uploads, and how many users there are.
--
-- What upload_user_summary says of all users, reckoned for those that are shown: sorting the times
-- of a million uploads by user is what takes long.
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
        -- So that a hash finds the user who is none, too.
        and coalesce(upload.user_id, '') = coalesce(busiest.user_id, '')
        and (upload.user_id is null) = (busiest.user_id is null)
group by busiest.user_id, busiest.uploads, busiest.total
order by busiest.uploads desc, busiest.user_id;
