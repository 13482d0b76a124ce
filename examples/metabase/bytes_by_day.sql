-- Bytes that arrived each day
-- Display: line; X: `day`; Y: `gigabytes`, `at_least`, `at_most`
-- Variables: partner_id (number, required), since (date)
select
    day,
    bytes / 1e9 as gigabytes,
    at_least_bytes / 1e9 as at_least,
    at_most_bytes / 1e9 as at_most
from kaltura.upload_bytes_daily
where partner_id = {{partner_id}} [[and day >= {{since}}]]
order by day
