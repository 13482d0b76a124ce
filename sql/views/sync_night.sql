-- What came of each calendar day, one row per account and day: a night without any run shows too.
--
-- From the day of the account's first attempt to today (so far).  Attempts that found another run at
-- work, and dry runs, do not count as runs.
-- partner_id: Kaltura account (partner).
-- day: The day in kaltura_time_zone().
-- outcome: complete - a run was published that day that read everything (sync_freshness says what
--   complete means); partial - one was published, but none that read everything; failed - runs
--   failed, were refused or abandoned, and none was published; no_run - none of these.
-- runs: Runs and attempts that ended that day or are at work, equal ones counted each.
-- complete_at: Publication timestamp of the last complete one; NULL without one.
-- last_attempt_at: When the last of them began or, of equal ones, ended; NULL if there was none.
-- error_kind: Of the last one that failed; NULL if none did.
create or replace view sync_night with (security_invoker = true) as
with zone as materialized (
    select kaltura_time_zone() as name
),

attempt as (
    select
        run.partner_id,
        run.run_id,
        sync_run_state(run.status, run.heartbeat_at) as status,
        run.attempts,
        -- Of one that is dead, and that no run has marked yet.
        coalesce(run.error_kind, nullif(sync_run_state(run.status, run.heartbeat_at), run.status))
        as error_kind,
        run.published_at,
        run.published_at is not null
        and sync_run_is_complete(run.coverage, run.holes) as is_complete,
        case
            when run.attempts > 1 then run.heartbeat_at else run.started_at
        end as attempted_at,
        cast(run.started_at at time zone zone.name as date) as first_day,
        cast(
            coalesce(run.published_at, run.finished_at, run.heartbeat_at) at time zone zone.name
            as date
        ) as last_day
    from sync_run as run
    cross join zone
    where run.status not in ('skipped', 'dry_run')
),

-- A run belongs to the day on which it was published or ended; equal attempts, which are one row,
-- to all days from the first to the last.
on_day as (
    select
        attempt.*,
        attempt.last_day - earlier as day,
        -- Known in sum only: they count on their last day.
        case when earlier = 0 then attempt.attempts else 0 end as counted
    from attempt
    -- Of numbers: midnight, of which a series of dates would be made, is not in every zone each day.
    cross join lateral generate_series(
        0,
        case when attempt.attempts > 1 then attempt.last_day - attempt.first_day else 0 end
    ) as earlier
),

account as (
    select
        attempt.partner_id,
        min(attempt.first_day) as first_day,
        greatest(max(attempt.last_day), cast(now() at time zone zone.name as date)) as last_day
    from attempt
    cross join zone
    group by attempt.partner_id, zone.name
)

select
    account.partner_id,
    account.first_day + later as day,
    case
        when bool_or(on_day.is_complete) then 'complete'
        when bool_or(on_day.published_at is not null) then 'partial'
        when bool_or(on_day.status in ('failed', 'refused', 'abandoned')) then 'failed'
        else 'no_run'
    end as outcome,
    coalesce(sum(on_day.counted), 0) as runs,
    max(on_day.published_at) filter (where on_day.is_complete) as complete_at,
    max(on_day.attempted_at) as last_attempt_at,
    (
        array_agg(on_day.error_kind order by on_day.run_id desc)
        filter (where on_day.error_kind is not null)
    )[1] as error_kind
from account
cross join lateral generate_series(0, account.last_day - account.first_day) as later
left join on_day
    on on_day.partner_id = account.partner_id and on_day.day = account.first_day + later
group by account.partner_id, account.first_day, later
