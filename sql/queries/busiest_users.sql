-- Who uploads most, and how many of their uploads succeed?
-- Variables: partner_id, since
select
    user_id,
    count(*) as uploads,
    round(coalesce(sum(uploaded_size_bytes), 0) / 1e9, 2) as gb_received,
    count(*) filter (where outcome = 'succeeded') as succeeded,
    count(*) filter (where outcome = 'failed') as failed,
    count(*) filter (where outcome = 'abandoned') as abandoned,
    count(*) filter (where outcome = 'deleted') as deleted,
    count(*) filter (where outcome = 'still_open') as still_open,
    max(created_at) as last_upload_at
from upload_outcome
where partner_id = :partner_id and created_at >= cast(:'since' as timestamptz)
group by user_id
order by coalesce(sum(uploaded_size_bytes), 0) desc, user_id
limit 20
