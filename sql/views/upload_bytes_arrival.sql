-- What each publication tells of the bytes that arrived and when, derived anew from the versions.
--
-- For verify, which compares it with upload_bytes_arrival_log.  From the growth of
-- uploaded_size_bytes between two versions of a token; what later versions tell of one whose
-- predecessor was pruned is missing.
-- partner_id: Kaltura account (partner).
-- run_id: The run that published it.
-- is_long: Whether more than a day is between the earliest and the latest.
-- utc_day: Day, in UTC, of the earliest.
-- earliest_quarters: For each number of bytes: not before this quarter of an hour; see the log.
-- latest_quarters: Not after this one.
-- best_quarters: Best estimate of when they arrived.
-- bytes: How many; those of each token that was first seen, and sums of what others grew by.
create or replace view upload_bytes_arrival with (security_invoker = true) as
-- For each published run, the last one before it that saw all tokens, or all open ones: runs are
-- published in the order of their ids.
with run as (
    select
        published.*,
        max(published.run_id) filter (where published.read_all) over before_it
        as saw_all_run_id,
        max(published.run_id) filter (where published.read_open) over before_it
        as saw_open_run_id
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
        became.run_id,
        became.version = 1 as is_first,
        became.uploaded_size_bytes - coalesce(was.uploaded_size_bytes, 0) as bytes,
        became.updated_at,
        became.observed_at,
        least(
            case
                when became.version = 1 then became.created_at
                -- No walk sees the size of a token that is not listed, and it may grow all the same.
                when not was.is_listed then coalesce(was.last_listed_at, became.created_at)
                else greatest(
                    run_was.began_at,
                    case when missed.run_id is null then run_saw.began_at end
                )
            end,
            became.observed_at
        ) as arrived_after
    from upload_token_history as became
    inner join run as run_became on run_became.run_id = became.run_id
    left join upload_token_superseded as was
        on
            was.partner_id = became.partner_id
            and was.token_id = became.token_id
            and was.version = became.version - 1
    left join run as run_was on run_was.run_id = was.run_id
    left join run as run_saw
        on run_saw.run_id = case
            when was.status in (0, 1, 2) then run_became.saw_open_run_id
            else run_became.saw_all_run_id
        end
    left join unobserved_token as missed
        on
            missed.partner_id = became.partner_id
            and missed.token_id = became.token_id
            and missed.run_id = run_saw.run_id
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
        grown.*,
        -- updated_at is in whole seconds: the second may begin before the interval does.
        coalesce(
            grown.updated_at + interval '1 second' > grown.arrived_after
            and grown.updated_at <= grown.observed_at,
            false
        ) as fits
    from grown
    offset 0
),

cut as (
    select
        arrived.partner_id,
        arrived.run_id,
        arrived.is_first,
        arrived.bytes,
        cast(floor(date_part('epoch', arrived.arrived_after) / 900) as integer) as earliest,
        cast(floor(date_part('epoch', moment.latest) / 900) as integer) as latest,
        cast(floor(date_part('epoch', moment.best) / 900) as integer) as best
    from arrived
    cross join lateral (
        select
            case
                when arrived.fits then greatest(arrived.updated_at, arrived.arrived_after)
                else arrived.observed_at
            end as latest,
            case
                when arrived.fits then greatest(arrived.updated_at, arrived.arrived_after)
                -- In seconds: days would make it depend on the session's time zone.
                else arrived.arrived_after + make_interval(
                    secs => date_part('epoch', arrived.observed_at - arrived.arrived_after) / 2
                )
            end as best
        -- Computed once.
        offset 0
    ) as moment
),

part as (
    select
        cut.partner_id,
        cut.run_id,
        cut.earliest,
        cut.latest,
        cut.best,
        cut.bytes
    from cut
    where cut.is_first
    union all
    select
        cut.partner_id,
        cut.run_id,
        cut.earliest,
        cut.latest,
        cut.best,
        cast(sum(cut.bytes) as bigint) as bytes
    from cut
    where not cut.is_first
    group by 1, 2, 3, 4, 5
)

select
    part.partner_id,
    part.run_id,
    part.latest - part.earliest > 96 as is_long,
    date '1970-01-01' + part.earliest / 96 as utc_day,
    array_agg(part.earliest order by part.earliest, part.latest, part.best, part.bytes)
    as earliest_quarters,
    array_agg(part.latest order by part.earliest, part.latest, part.best, part.bytes)
    as latest_quarters,
    array_agg(part.best order by part.earliest, part.latest, part.best, part.bytes)
    as best_quarters,
    array_agg(part.bytes order by part.earliest, part.latest, part.best, part.bytes) as bytes
from part
group by 1, 2, 3, 4
