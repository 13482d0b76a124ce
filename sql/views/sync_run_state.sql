-- The status of a run as the next run will find it: one without a heartbeat for 15 minutes is abandoned.
--
-- 15 minutes is the default of ETL_LEASE_SECONDS; a run with another lease is judged by this all
-- the same.  Its arguments are two columns of sync_run.
create or replace function sync_run_state(status text, heartbeat_at timestamptz)
returns text
language sql
stable
parallel safe
return case
    when
        status = 'running'
        -- A heartbeat in the future is from before the server's clock was set back.
        and (
            heartbeat_at <= statement_timestamp() - interval '15 minutes'
            or heartbeat_at > statement_timestamp() + interval '15 minutes'
        )
        then 'abandoned'
    else status
end
