-- At most one run per account is running.
select
    partner_id,
    count(*) as running,
    min(run_id) as first_run_id,
    max(run_id) as last_run_id
from sync_run
where status = 'running'
group by partner_id
having count(*) > 1
