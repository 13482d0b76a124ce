-- What came of the nights
-- Display: table; `outcome` with conditional colors
-- Variables: partner_id (number, required), since (date)
select
    day,
    outcome,
    runs,
    complete_at,
    error_kind
from kaltura.sync_night
where partner_id = {{partner_id}} [[and day >= {{since}}]]
order by day desc
