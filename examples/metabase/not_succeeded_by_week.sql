-- Share of uploads that did not succeed, by week
-- Display: line; X: `week`; Y: `percent_not_succeeded` (style: percent of 100, suffix %)
-- Variables: partner_id (number, required), since (date)
-- Weeks that later days may still change are left out.
select
    cast(date_trunc('week', day) as date) as week,
    sum(started) as started,
    round(100.0 * sum(failed + abandoned + deleted) / sum(started), 1) as percent_not_succeeded
from kaltura.upload_outcome_daily
where partner_id = {{partner_id}} [[and day >= {{since}}]]
group by 1
having bool_and(is_mature)
order by 1
