-- The last calendar days, newest first, by what came of them: a day without any run shows too.
select
    day,
    outcome,
    runs,
    complete_at,
    last_attempt_at,
    error_kind
from sync_night
where partner_id = %(partner_id)s
order by day desc
limit %(rows)s;
