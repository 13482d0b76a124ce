-- When a run of an account was published; no row if it was not.
select run.published_at
from sync_run as run
where
    run.partner_id = %(partner_id)s
    and run.run_id = %(run_id)s
    and run.published_at is not null
