-- The accounts that have a run, at most 100.
select
    partner_id,
    max(published_at) as published_at
from sync_run
group by partner_id
order by partner_id
limit 100;
