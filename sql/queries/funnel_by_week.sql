-- How far do the uploads of each week get?
-- Variables: partner_id, since
with upload as (
    select
        outcome,
        uploaded_size_bytes,
        file_size_bytes,
        is_mature,
        date_trunc('week', created_at at time zone kaltura_time_zone()) as week
    from upload_outcome
    where partner_id = :partner_id and created_at >= cast(:'since' as timestamptz)
)

select
    cast(upload.week as date) as week,
    count(*) as started,
    count(*) filter (
        where upload.uploaded_size_bytes > 0 or upload.outcome = 'succeeded'
    ) as with_bytes,
    count(*) filter (
        where
            upload.uploaded_size_bytes >= greatest(upload.file_size_bytes, 1)
            or upload.outcome = 'succeeded'
    ) as with_all_bytes,
    count(*) filter (where upload.outcome = 'succeeded') as succeeded,
    round(100.0 * count(*) filter (where upload.outcome = 'succeeded') / count(*), 1)
    as percent_succeeded,
    count(*) filter (where upload.outcome = 'still_open') as still_open,
    bool_and(upload.is_mature)
    and (upload.week + interval '7 days') at time zone kaltura_time_zone()
    <= freshness.open_seen_at as is_mature
from upload
inner join sync_freshness as freshness on freshness.partner_id = :partner_id
group by upload.week, freshness.open_seen_at
order by upload.week
