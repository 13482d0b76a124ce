-- How fast does the number of uploads grow?
-- Variables: partner_id, now, months
with upload as (
    select
        uploaded_size_bytes,
        date_trunc('month', created_at at time zone kaltura_time_zone()) as month
    from upload_outcome
    where
        partner_id = :partner_id
        and created_at >= (
            date_trunc('month', cast(:'now' as timestamptz) at time zone kaltura_time_zone())
            - make_interval(months => :months)
        ) at time zone kaltura_time_zone()
)

select
    to_char(upload.month, 'YYYY-MM') as month,
    count(*) as tokens,
    round(coalesce(sum(uploaded_size_bytes), 0) / 1e9, 2) as gb_received_of_these,
    case
        -- A part of a month, or what has been seen of it, is not compared with a whole one.
        when
            (upload.month + interval '1 month') at time zone kaltura_time_zone()
            <= freshness.open_seen_at
            then round(
                100.0 * count(*) / lag(count(*)) over (order by upload.month) - 100, 1
            )
    end as percent_more
from upload
inner join sync_freshness as freshness on freshness.partner_id = :partner_id
group by upload.month, freshness.open_seen_at
order by upload.month
