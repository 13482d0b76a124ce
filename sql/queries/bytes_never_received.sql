-- How many announced bytes were never received?
-- Variables: partner_id, since
select
    outcome,
    count(*) as uploads,
    round(sum(file_size_bytes) / 1e9, 2) as gb_announced,
    round(sum(coalesce(uploaded_size_bytes, 0)) / 1e9, 2) as gb_received,
    round(
        sum(greatest(file_size_bytes - coalesce(uploaded_size_bytes, 0), 0)) / 1e9, 2
    ) as gb_never_received
from upload_outcome
where
    partner_id = :partner_id
    and created_at >= cast(:'since' as timestamptz)
    and file_size_bytes > 0
    and outcome <> 'succeeded'
group by outcome
order by gb_never_received desc
