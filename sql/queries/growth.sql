-- How fast does the number of uploads grow?
-- Variables: partner_id
select
    to_char(created_at at time zone kaltura_time_zone(), 'YYYY-MM') as month,
    count(*) as tokens,
    round(sum(uploaded_size_bytes) / 1e9, 2) as gb_received,
    sum(count(*)) over (order by min(created_at)) as tokens_in_all,
    round(sum(sum(uploaded_size_bytes)) over (order by min(created_at)) / 1e9, 2) as gb_in_all
from upload_token
where partner_id = :partner_id
group by 1
order by 1
