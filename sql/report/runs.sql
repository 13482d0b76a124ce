-- The last runs, newest first, without dry runs and skipped runs.
select
    run_id,
    coalesce(overrides ->> 'replayed_mode', mode) as mode,
    sync_run_state(status, heartbeat_at) as status,
    started_at,
    finished_at - started_at as took,
    tokens_read,
    inserted,
    changed,
    absent,
    relisted,
    rejected,
    unreadable,
    coalesce(error_kind, nullif(sync_run_state(status, heartbeat_at), status)) as error_kind,
    error_message
from sync_run
where partner_id = %(partner_id)s and status not in ('dry_run', 'skipped')
order by run_id desc
limit %(rows)s;
