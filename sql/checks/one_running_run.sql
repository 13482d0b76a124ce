-- At most one run per account holds the lease; one that is starting has no walk yet.
select
    partner_id,
    count(*) as running,
    min(run_id) as first_run_id,
    max(run_id) as last_run_id
from sync_run
where status = 'running' and walk_id is not null
group by partner_id
having count(*) > 1
