-- The last calendar days, newest first: what came of their runs, and what these published.
--
-- A day without any run shows too.  error_message is that of the last failure of the day.
with failed_run as materialized (
    select
        run_id,
        error_message,
        coalesce(finished_at, heartbeat_at) as ended_at
    from sync_run
    where
        partner_id = %(partner_id)s
        and published_at is null
        and status in ('failed', 'refused', 'abandoned')
)

select
    night.day,
    night.outcome,
    night.runs,
    night.complete_at,
    night.last_attempt_at,
    night.error_kind,
    failure.error_message,
    published.*
from (
    select
        sync_night.*,
        cast(sync_night.day as timestamp) at time zone %(time_zone)s as begins_at,
        cast(sync_night.day + 1 as timestamp) at time zone %(time_zone)s as ends_at
    from sync_night
    where
        sync_night.partner_id = %(partner_id)s
        -- Otherwise the runs of all days are read, before they are put in order.
        and sync_night.day > cast(now() at time zone %(time_zone)s as date) - %(rows)s
    order by sync_night.day desc
    limit %(rows)s
) as night
cross join lateral (
    select
        coalesce(sum(run.inserted), 0) as inserted,
        coalesce(sum(run.changed + run.relisted), 0) as changed,
        coalesce(sum(run.absent), 0) as absent,
        coalesce(sum(run.rejected), 0) as rejected
    from sync_run as run
    where
        run.partner_id = %(partner_id)s
        and run.published_at >= night.begins_at
        and run.published_at < night.ends_at
) as published
left join lateral (
    select failed_run.error_message
    from failed_run
    where failed_run.ended_at >= night.begins_at and failed_run.ended_at < night.ends_at
    order by failed_run.run_id desc
    limit 1
) as failure on true
order by night.day desc;
