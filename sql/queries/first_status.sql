-- In which status is a new token first seen?
-- Variables: partner_id, since
select
    to_status as first_status,
    count(*) as tokens,
    round(100.0 * count(*) / sum(count(*)) over (), 1) as percent,
    percentile_cont(0.5) within group (order by happened_before - happened_after) as median_age
from upload_token_status_history
where
    partner_id = :partner_id
    and change_kind = 'first_seen'
    and happened_after >= cast(:'since' as timestamptz)
group by to_status, to_status_code
order by to_status_code
