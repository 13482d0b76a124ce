-- The accounts that have a run.
select distinct partner_id
from sync_run
order by partner_id;
