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

-- What published nothing is little, and has no index: failures, and what is at work.
fruitless as materialized (
    select
        run.partner_id,
        run.run_id,
        sync_run_state(run.status, run.heartbeat_at) as status,
        run.attempts,
        -- Of one that is dead, and that no run has marked yet.
        coalesce(run.error_kind, nullif(sync_run_state(run.status, run.heartbeat_at), run.status))
        as error_kind,
        case
            when run.attempts > 1 then run.heartbeat_at else run.started_at
        end as attempted_at,
        cast(run.started_at at time zone zone.name as date) as first_day,
        cast(coalesce(run.finished_at, run.heartbeat_at) at time zone zone.name as date)
        as last_day
    from sync_run as run
    cross join zone
    where run.published_at is null and run.status not in ('skipped', 'dry_run')
),

-- A run belongs to the day on which it was published or ended; equal attempts, which are one row,
-- to all days from the first to the last.
fruitless_on_day as (
    select
        fruitless.partner_id,
        fruitless.last_day - earlier as day,
        bool_or(fruitless.status in ('failed', 'refused', 'abandoned')) as has_failed,
        -- Known in sum only: they count on their last day.
        sum(case when earlier = 0 then fruitless.attempts else 0 end) as runs,
        max(fruitless.attempted_at) as last_attempt_at,
        (
            array_agg(fruitless.error_kind order by fruitless.run_id desc)
            filter (where fruitless.error_kind is not null)
        )[1] as error_kind
    from fruitless
    -- Of numbers: midnight, of which a series of dates would be made, is not in every zone each day.
    cross join lateral generate_series(
        0,
        case when fruitless.attempts > 1 then fruitless.last_day - fruitless.first_day else 0 end
    ) as earlier
    group by 1, 2
),

-- Computed before it is joined: row-level security lets no condition on an expression reach an index.
calendar as materialized (
    select
        account.partner_id,
        days.first_day + later as day,
        -- With a margin, because clocks may be changed near midnight.
        cast(days.first_day + later as timestamp) at time zone zone.name
        - interval '3 hours' as begins_before,
        cast(days.first_day + later + 1 as timestamp) at time zone zone.name
        + interval '3 hours' as ends_after
    from (select distinct run.partner_id from sync_run as run) as account
    cross join zone
    cross join lateral (
        select run.started_at from sync_run as run
        where
            run.partner_id = account.partner_id and run.status not in ('skipped', 'dry_run')
        order by run.run_id
        limit 1
    ) as first_run
    cross join lateral (
        select
            cast(first_run.started_at at time zone zone.name as date) as first_day,
            greatest(
                cast(max(run.published_at) at time zone zone.name as date),
                (
                    select max(fruitless.last_day) from fruitless
                    where fruitless.partner_id = account.partner_id
                ),
                cast(now() at time zone zone.name as date)
            ) as last_day
        from sync_run as run
        where run.partner_id = account.partner_id and run.published_at is not null
    ) as days
    cross join lateral generate_series(0, days.last_day - days.first_day) as later
)

select
    calendar.partner_id,
    calendar.day,
    case
        when published.is_complete then 'complete'
        when published.runs > 0 then 'partial'
        when fruitless_on_day.has_failed then 'failed'
        else 'no_run'
    end as outcome,
    published.runs + coalesce(fruitless_on_day.runs, 0) as runs,
    published.complete_at,
    greatest(published.last_attempt_at, fruitless_on_day.last_attempt_at) as last_attempt_at,
    fruitless_on_day.error_kind
from calendar
cross join zone
cross join lateral (
    select
        count(*) as runs,
        bool_or(sync_run_is_complete(run.coverage, run.holes)) as is_complete,
        max(run.published_at) filter (
            where sync_run_is_complete(run.coverage, run.holes)
        ) as complete_at,
        max(run.started_at) as last_attempt_at
    from sync_run as run
    where
        run.partner_id = calendar.partner_id
        and run.published_at >= calendar.begins_before
        and run.published_at < calendar.ends_after
        and cast(run.published_at at time zone zone.name as date) = calendar.day
) as published
left join fruitless_on_day
    on
        fruitless_on_day.partner_id = calendar.partner_id
        and fruitless_on_day.day = calendar.day
