-- Open tokens at the end of each day
-- Display: area, stacked; X: `day`; series: `status`; Y: `tokens`
-- Variables: partner_id (number, required), since (date)
select
    day,
    status,
    tokens,
    known_at,
    stale_by_seconds
from kaltura.upload_token_daily_status
where
    partner_id = {{partner_id}}
    and status in ('PENDING', 'PARTIAL_UPLOAD', 'FULL_UPLOAD')
    [[and day >= {{since}}]]
order by day, status
