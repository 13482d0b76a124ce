-- The newest runs, newest first, without dry runs and skipped runs: is one at work, how did the last end?
select
    run_id,
    sync_run_state(status, heartbeat_at) as status,
    started_at,
    coalesce(error_kind, nullif(sync_run_state(status, heartbeat_at), status)) as error_kind
from sync_run
where partner_id = %(partner_id)s and status not in ('dry_run', 'skipped')
order by run_id desc
limit %(rows)s;
