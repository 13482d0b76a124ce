-- Bytes that arrived each day, at least and at most; upload_outcome_daily has them by day created.
--
-- From the growth of uploaded_size_bytes between two versions of a token: it arrived after the
-- last published walk that saw the size before (or created_at), and not after updated_at or the
-- reply that showed the size after.  What only tokens held that no run saw is missing, and what an
-- upload sent that began again before a run saw it.  After a pruning of versions the days up to its
-- horizon have no rows.
-- partner_id: Kaltura account (partner).
-- day: The day in time_zone; one in which no bytes can have arrived has no row.
-- bytes: Best estimate: all that grew between two versions on the day of updated_at (if that does
--   not fit: of the middle of the time in which it arrived).
-- at_least_bytes: What certainly arrived on the day.
-- at_most_bytes: What may have arrived on the day; of several days that a growth may belong to,
--   each has all of it.
-- time_zone: Zone of the days: kaltura_time_zone().
create or replace view upload_bytes_daily with (security_invoker = true) as
with zone as materialized (
    select kaltura_time_zone() as name
),

-- For each published run, the last one before it that saw all tokens, or all open ones: runs are
-- published in the order of their ids, and one begins when the one before has ended.
run as (
    select
        published.run_id,
        published.began_at,
        max(case when published.read_all then published.run_id end) over before_it
        as saw_all_run_id,
        max(case when published.read_all then published.began_at end) over before_it
        as saw_all_at,
        max(case when published.read_open then published.run_id end) over before_it
        as saw_open_run_id,
        max(case when published.read_open then published.began_at end) over before_it
        as saw_open_at
    from (
        select
            run.partner_id,
            run.run_id,
            run.published_at,
            walk.started_at as began_at,
            run.coverage = '{(,)}' as read_all,
            run.coverage + run.open_coverage = '{(,)}' as read_open
        from sync_run as run
        inner join sync_run as walk
            on walk.partner_id = run.partner_id and walk.run_id = run.walk_id
        where run.published_at is not null
    ) as published
    window before_it as (
        partition by published.partner_id
        order by published.published_at
        rows between unbounded preceding and 1 preceding
    )
),

grown as (
    select
        became.partner_id,
        became.uploaded_size_bytes - coalesce(was.uploaded_size_bytes, 0) as bytes,
        became.updated_at,
        became.observed_at,
        case
            when became.version = 1 or was.version is null then became.created_at
            -- No walk sees the size of a token that is not listed, and it may grow all the same.
            when not was.is_listed then coalesce(was.last_listed_at, became.created_at)
            else greatest(
                run_was.began_at,
                case
                    when missed.run_id is not null then null
                    when was.status in (0, 1, 2) then run_became.saw_open_at
                    else run_became.saw_all_at
                end
            )
        end as arrived_after
    from upload_token_history as became
    inner join run as run_became on run_became.run_id = became.run_id
    left join upload_token_superseded as was
        on
            was.partner_id = became.partner_id
            and was.token_id = became.token_id
            and was.version = became.version - 1
    left join run as run_was on run_was.run_id = was.run_id
    left join unobserved_token as missed
        on
            missed.partner_id = became.partner_id
            and missed.token_id = became.token_id
            and missed.run_id = case
                when was.status in (0, 1, 2) then run_became.saw_open_run_id
                else run_became.saw_all_run_id
            end
    where
        became.uploaded_size_bytes > 0
        and (
            became.change_kind = 'first_seen'
            or 'uploaded_size_bytes' = any(became.changed_columns)
        )
        and became.uploaded_size_bytes > coalesce(was.uploaded_size_bytes, 0)
        -- Pruned: it arrived before the horizon, and how much is not known.
        and (became.version = 1 or was.version is not null)
    -- So arrived_after is computed once per version; what follows from it, likewise.
    offset 0
),

arrived as (
    select
        grown.partner_id,
        grown.bytes,
        least(grown.arrived_after, until.latest) as earliest,
        until.latest,
        until.fits
    from grown
    cross join lateral (
        select
            -- updated_at is in whole seconds: the second may begin before the interval does.
            grown.updated_at + interval '1 second' > grown.arrived_after
            and grown.updated_at <= grown.observed_at as fits,
            case
                when
                    grown.updated_at + interval '1 second' > grown.arrived_after
                    and grown.updated_at <= grown.observed_at
                    then least(grown.updated_at + interval '1 second', grown.observed_at)
                else grown.observed_at
            end as latest
    ) as until
    offset 0
),

by_days as (
    select
        arrived.partner_id,
        cast(arrived.earliest at time zone zone.name as date) as first_day,
        cast(arrived.latest at time zone zone.name as date) as last_day,
        cast(
            case
                when arrived.fits
                    then greatest(arrived.latest - interval '1 second', arrived.earliest)
                else arrived.earliest + (arrived.latest - arrived.earliest) / 2
            end at time zone zone.name as date
        ) as best_day,
        sum(arrived.bytes) as bytes
    from arrived
    cross join zone
    group by 1, 2, 3, 4
),

summed as (
    select
        by_days.partner_id,
        change.day,
        sum(change.may_arrive) as may_arrive,
        sum(change.at_least) as at_least,
        sum(change.best) as best
    from by_days
    cross join lateral (
        values
        (
            by_days.first_day,
            by_days.bytes,
            case when by_days.first_day = by_days.last_day then by_days.bytes else 0 end,
            0
        ),
        (by_days.best_day, 0, 0, by_days.bytes),
        (by_days.last_day + 1, -by_days.bytes, 0, 0)
    ) as change (day, may_arrive, at_least, best)
    group by by_days.partner_id, change.day
),

running as (
    select
        summed.partner_id,
        summed.day,
        summed.at_least,
        summed.best,
        sum(summed.may_arrive) over one_account as at_most,
        lead(summed.day) over one_account as next_day
    from summed
    window one_account as (partition by summed.partner_id order by summed.day)
)

select
    running.partner_id,
    running.day + later as day,
    cast(case when later = 0 then running.best else 0 end as bigint) as bytes,
    cast(case when later = 0 then running.at_least else 0 end as bigint) as at_least_bytes,
    cast(running.at_most as bigint) as at_most_bytes,
    zone.name as time_zone
from running
cross join zone
cross join lateral generate_series(0, running.next_day - 1 - running.day) as later
left join (
    select
        pruning.partner_id,
        max(pruning.horizon) as horizon
    from pruning
    where pruning.kind = 'versions' and pruning.deleted > 0
    group by pruning.partner_id
) as pruned on pruned.partner_id = running.partner_id
where
    running.at_most > 0
    and (
        pruned.horizon is null
        or running.day + later > cast(pruned.horizon at time zone zone.name as date)
    )
