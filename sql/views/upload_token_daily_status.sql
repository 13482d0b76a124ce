-- How many tokens were in which status at the end of each day, as far as is known now.
--
-- A change counts from upload_token_status_history.happened_at, whenever it was seen: so what a run
-- sees at 02:30 of before midnight counts for the day before, and a figure may still change until
-- stale_by_seconds is 0.  What came and went between two looks is not told: an upload that was closed
-- and had disappeared by the next look counts as open until happened_at of its disappearance, even if
-- it is listed again as CLOSED.  What was known at the time is in upload_token_as_of().  Today's row
-- is the state so far.  From the day of the first publication (or, later, of the horizon of a pruning
-- of versions) to today, days without a run too.  A status that no token was in has no row.
-- partner_id: Kaltura account (partner).
-- day: The day in time_zone.
-- status: Name of the status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED for those no longer listed.
-- status_code: Its code; NULL for NOT_LISTED and UNKNOWN.
-- tokens: Number of tokens at the end of the day.
-- time_zone: Zone of the days: kaltura_time_zone().
-- unseen_tokens: Of PENDING, how many no run saw so: made already, and of the status in which they
--   were first seen only after the day.  They count as PENDING, but may have been PARTIAL_UPLOAD
--   or FULL_UPLOAD: the sum of the three is right.
-- known_at: Beginning of the published walk on which the figure rests: the first one after the end
--   of the day, or else the last one.  One that read everything; for the open statuses one that
--   read all open tokens is enough.  NULL if there was none.
-- stale_by_seconds: End of the day minus known_at: what happened then is not known yet; 0 if
--   known_at is after the end of the day; NULL without known_at.
create or replace view upload_token_daily_status with (security_invoker = true) as
with zone as materialized (
    select kaltura_time_zone() as name
),

account as materialized (
    select
        known.partner_id,
        greatest(
            cast(published.first_at at time zone zone.name as date),
            cast(pruned.horizon at time zone zone.name as date)
        ) as first_day,
        greatest(
            cast(published.last_at at time zone zone.name as date),
            cast(now() at time zone zone.name as date)
        ) as last_day
    from (select distinct run.partner_id from sync_run as run) as known
    cross join zone
    cross join lateral (
        select
            min(run.published_at) as first_at,
            max(run.published_at) as last_at
        from sync_run as run
        where run.partner_id = known.partner_id and run.published_at is not null
    ) as published
    left join upload_token_horizon as pruned on pruned.partner_id = known.partner_id
    where published.first_at is not null
),

-- Computed before it is joined: row-level security lets no condition on an expression reach an index.
calendar as materialized (
    select
        account.partner_id,
        account.first_day + later as day,
        -- With a margin, because clocks may be changed near midnight.
        cast(account.first_day + later + 1 as timestamp) at time zone zone.name
        - interval '3 hours' as ends_at_least,
        cast(account.first_day + later + 3 as timestamp) at time zone zone.name as next_nights_end
    from account
    cross join zone
    -- Of numbers: midnight, of which a series of dates would be made, is not in every zone each day.
    cross join lateral generate_series(0, account.last_day - account.first_day) as later
),

-- The walks of complete runs, by the day on which they began.
looked as (
    select
        run.partner_id,
        cast(walked.started_at at time zone zone.name as date) as day,
        min(walked.started_at) as first_at,
        max(walked.started_at) as last_at
    from sync_run as run
    inner join sync_run as walked
        on walked.partner_id = run.partner_id and walked.run_id = run.walk_id
    cross join zone
    where run.published_at is not null and sync_run_is_complete(run.coverage, run.holes)
    group by 1, 2
),

-- The first walk after the end of the day, or else the last one.  Those that read all open tokens may
-- be many, so an index is asked for the one; walks begin in the order in which they are published.
-- Grouped, so that it is asked once for all statuses of a day, and only of the days that are wanted.
known as (
    select
        calendar.partner_id,
        calendar.day,
        of_open.is_open,
        max(walk.began_at) as known_at
    from calendar
    cross join zone
    cross join (values (true), (false)) as of_open (is_open)
    cross join lateral (
        select
            case
                when of_open.is_open
                    then coalesce(
                        (
                            select walked.started_at
                            from sync_run as run
                            inner join sync_run as walked
                                on
                                    walked.partner_id = run.partner_id
                                    and walked.run_id = run.walk_id
                            where
                                run.partner_id = calendar.partner_id
                                and run.published_at >= calendar.ends_at_least
                                and cast(walked.started_at at time zone zone.name as date)
                                > calendar.day
                                -- A case: the planner takes an equality of ranges to be rare.
                                and case
                                    when run.coverage + run.open_coverage = '{(,)}' then true
                                    when run.holes <> '[]'
                                        then run.coverage + run.open_coverage
                                            + sync_tolerated_holes(run.holes, true)
                                            = '{(,)}'
                                end
                            order by run.published_at
                            limit 1
                        ),
                        (
                            select freshness.open_seen_at from sync_freshness as freshness
                            where freshness.partner_id = calendar.partner_id
                        )
                    )
                else coalesce(
                    -- Mostly the next night; the whole ledger is read only if it is none of these.
                    (
                        select walked.started_at
                        from sync_run as run
                        inner join sync_run as walked
                            on
                                walked.partner_id = run.partner_id
                                and walked.run_id = run.walk_id
                        where
                            run.partner_id = calendar.partner_id
                            and run.published_at >= calendar.ends_at_least
                            and run.published_at < calendar.next_nights_end
                            and cast(walked.started_at at time zone zone.name as date)
                            > calendar.day
                            and case
                                when sync_run_is_complete(run.coverage, run.holes) then true
                            end
                        order by run.published_at
                        limit 1
                    ),
                    (
                        select min(looked.first_at) from looked
                        where
                            looked.partner_id = calendar.partner_id
                            and looked.day > calendar.day
                    ),
                    (
                        select max(looked.last_at) from looked
                        where looked.partner_id = calendar.partner_id
                    )
                )
            end as began_at
    ) as walk
    group by calendar.partner_id, calendar.day, of_open.is_open
),

-- Of all runs, before the zone is asked for the day of each quarter of an hour: days begin at one in
-- every zone.
told as (
    select
        log.partner_id,
        log.status,
        log.status_code,
        log.quarter_hour,
        sum(log.tokens) as tokens,
        sum(log.unseen_tokens) as unseen
    from upload_token_status_count_log as log
    group by 1, 2, 3, 4
),

moved_by_day as (
    select
        told.partner_id,
        told.status,
        told.status_code,
        greatest(
            cast(told.quarter_hour at time zone zone.name as date), account.first_day
        ) as day,
        sum(told.tokens) as tokens,
        sum(told.unseen) as unseen
    from told
    cross join zone
    inner join account on account.partner_id = told.partner_id
    group by 1, 2, 3, 4
),

counted as (
    select
        moved_by_day.partner_id,
        moved_by_day.status,
        moved_by_day.status_code,
        moved_by_day.day as first_day,
        cast(sum(moved_by_day.tokens) over one_status as bigint) as tokens,
        cast(sum(moved_by_day.unseen) over one_status as bigint) as unseen,
        lead(moved_by_day.day) over one_status as next_day
    from moved_by_day
    window one_status as (
        partition by moved_by_day.partner_id, moved_by_day.status, moved_by_day.status_code
        order by moved_by_day.day
    )
)

select
    known.partner_id,
    known.day,
    counted.status,
    counted.status_code,
    counted.tokens,
    zone.name as time_zone,
    counted.unseen as unseen_tokens,
    known.known_at,
    -- greatest() leaves NULLs out, and 0 would say that nothing can change any more.
    case
        when known.known_at is not null
            -- date_part, because extract would compute in numeric.
            then greatest(
                date_part(
                    'epoch',
                    cast(known.day + 1 as timestamp) at time zone zone.name - known.known_at
                ),
                0
            )
    end as stale_by_seconds
from counted
cross join zone
inner join account on account.partner_id = counted.partner_id
-- Until the next day on which the number changes, otherwise until today.
cross join lateral generate_series(
    0, coalesce(counted.next_day - 1, account.last_day) - counted.first_day
) as later
inner join known
    on
        known.partner_id = counted.partner_id
        and known.day = counted.first_day + later
        and known.is_open = coalesce(counted.status_code in (0, 1, 2), false)
where counted.tokens > 0
