-- Uploads by day created, and what became of them
-- Display: bar, stacked; X: `day`; Y: `succeeded`, `failed`, `abandoned`, `deleted`, `still_open`
-- Variables: partner_id (number, required), since (date)
select
    day,
    sum(succeeded) as succeeded,
    sum(failed) as failed,
    sum(abandoned) as abandoned,
    sum(deleted) as deleted,
    sum(still_open) as still_open,
    bool_and(is_mature) as is_mature
from kaltura.upload_outcome_daily
where partner_id = {{partner_id}} [[and day >= {{since}}]]
group by day
order by day
