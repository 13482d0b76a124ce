-- How many tokens were in which status at the end of each day, as far as is known now.
--
-- A change counts from upload_token_status_history.happened_at, whenever it was seen: so what a run
-- sees at 02:30 of before midnight counts for the day before, and a figure may still change until
-- stale_by_seconds is 0.  What was known at the time is in upload_token_as_of().  Today's row is the
-- state so far.  From the day of the first publication (or, later, of the horizon of a pruning of
-- versions) to today, days without a run too.  A status that no token was in has no row.
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
--   known_at is after the end of the day.
create or replace view upload_token_daily_status with (security_invoker = true) as
with zone as materialized (
    select kaltura_time_zone() as name
),

-- When each published walk began, and whether it read everything, or all open tokens.
walk as (
    select
        run.partner_id,
        run.published_at,
        walked.started_at as began_at,
        sync_run_is_complete(run.coverage, run.holes) as read_all,
        run.coverage + run.open_coverage = '{(,)}'
        or (
            run.holes <> '[]'
            and run.coverage + run.open_coverage + sync_tolerated_holes(run.holes, true) = '{(,)}'
        ) as read_open
    from sync_run as run
    inner join sync_run as walked
        on walked.partner_id = run.partner_id and walked.run_id = run.walk_id
    where run.published_at is not null
),

account as (
    select
        walk.partner_id,
        -- For the moments before it.
        cast(
            greatest(
                cast(min(walk.published_at) at time zone zone.name as date),
                cast(max(pruned.horizon) at time zone zone.name as date)
            ) as timestamp
        ) at time zone zone.name as first_midnight,
        greatest(
            cast(min(walk.published_at) at time zone zone.name as date),
            cast(max(pruned.horizon) at time zone zone.name as date)
        ) as first_day,
        greatest(
            cast(max(walk.published_at) at time zone zone.name as date),
            cast(now() at time zone zone.name as date)
        ) as last_day,
        max(pruned.horizon) is not null as is_pruned
    from walk
    cross join zone
    left join (
        select
            pruning.partner_id,
            max(pruning.horizon) as horizon
        from pruning
        where pruning.kind = 'versions' and pruning.deleted > 0
        group by pruning.partner_id
    ) as pruned on pruned.partner_id = walk.partner_id
    group by walk.partner_id, zone.name
),

-- A walk says how it was at the ends of the days before it, back to the walk before.
looked as (
    select
        walk.partner_id,
        of_open.is_open,
        cast(walk.began_at at time zone zone.name as date) as day,
        min(walk.began_at) as first_at,
        max(walk.began_at) as last_at
    from walk
    cross join zone
    cross join (values (true), (false)) as of_open (is_open)
    where walk.read_all or (walk.read_open and of_open.is_open)
    group by 1, 2, 3
),

known as (
    select
        looked.partner_id,
        looked.is_open,
        served.first_day + later as day,
        served.known_at
    from (
        select
            looked.*,
            lag(looked.day) over one_kind as day_before,
            lead(looked.day) over one_kind as day_after
        from looked
        window one_kind as (partition by looked.partner_id, looked.is_open order by looked.day)
    ) as looked
    inner join account on account.partner_id = looked.partner_id
    cross join lateral (
        values
        (
            coalesce(looked.day_before, least(account.first_day, looked.day)),
            looked.day - 1,
            looked.first_at
        ),
        (
            looked.day,
            case when looked.day_after is null then account.last_day end,
            looked.last_at
        )
    ) as served (first_day, last_day, known_at)
    -- Of numbers: midnight, of which a series of dates would be made, is not in every zone each day.
    cross join lateral generate_series(0, served.last_day - served.first_day) as later
),

-- Few rows, before anything is said of them: the changes of a quarter of an hour (days begin at one
-- in every zone), and in one all that was before the first day.  No join, which would be taken to
-- leave few rows.
binned as (
    select
        moment.partner_id,
        moment.change_kind,
        moment.from_status_code,
        moment.to_status_code,
        date_bin(
            '15 minutes',
            greatest(moment.happened_at, (select min(first.first_midnight) from account as first)),
            'epoch'
        ) as changed_at,
        case
            when moment.change_kind = 'first_seen'
                then date_bin(
                    '15 minutes',
                    greatest(
                        moment.happened_after,
                        (select min(first.first_midnight) from account as first)
                    ),
                    'epoch'
                )
        end as created_at,
        count(*) as tokens
    from upload_token_status_history as moment
    group by 1, 2, 3, 4, 5, 6
),

-- Fewer still, before each is taken from one status and put into another.
by_day as (
    select
        binned.partner_id,
        binned.change_kind,
        binned.from_status_code,
        binned.to_status_code,
        cast(binned.changed_at at time zone zone.name as date) as day,
        cast(binned.created_at at time zone zone.name as date) as created_day,
        sum(binned.tokens) as tokens
    from binned
    cross join zone
    group by 1, 2, 3, 4, 5, 6
),

changed as (
    select
        by_day.partner_id,
        case
            when by_day.change_kind = 'absent' then 'NOT_LISTED'
            else upload_token_status_name(by_day.to_status_code)
        end as to_status,
        by_day.to_status_code,
        case
            when by_day.change_kind = 'first_seen' then null
            when by_day.change_kind = 'relisted' then 'NOT_LISTED'
            else upload_token_status_name(by_day.from_status_code)
        end as from_status,
        by_day.from_status_code,
        greatest(by_day.day, account.first_day) as day,
        -- greatest() leaves NULLs out.
        case
            when by_day.created_day is not null
                then greatest(by_day.created_day, account.first_day)
        end as created_day,
        account.first_day,
        account.is_pruned,
        by_day.tokens
    from by_day
    inner join account on account.partner_id = by_day.partner_id
),

moved as (
    select
        changed.partner_id,
        delta.status,
        delta.status_code,
        delta.day,
        delta.tokens,
        delta.unseen
    from changed
    cross join lateral (
        values
        (changed.to_status, changed.to_status_code, changed.day, changed.tokens, 0),
        (changed.from_status, changed.from_status_code, changed.day, -changed.tokens, 0),
        -- Every token begins as PENDING; when first seen, happened_after is created_at.
        ('PENDING', 0, changed.created_day, changed.tokens, changed.tokens),
        (
            'PENDING',
            0,
            case when changed.created_day is not null then changed.day end,
            -changed.tokens,
            -changed.tokens
        ),
        -- Where first versions were pruned: reckoned back from what there is now.
        (
            changed.to_status,
            changed.to_status_code,
            case when changed.is_pruned then changed.first_day end,
            -changed.tokens,
            0
        ),
        (
            changed.from_status,
            changed.from_status_code,
            case when changed.is_pruned then changed.first_day end,
            changed.tokens,
            0
        )
    ) as delta (status, status_code, day, tokens, unseen)
    where delta.status is not null and delta.day is not null
    union all
    select
        token.partner_id,
        case when token.is_listed then upload_token_status_name(token.status) else 'NOT_LISTED' end
        as status,
        case when token.is_listed then token.status end as status_code,
        account.first_day as day,
        count(*) as tokens,
        0 as unseen
    from upload_token as token
    inner join account on account.partner_id = token.partner_id
    where account.is_pruned
    group by 1, 2, 3, 4
),

moved_by_day as (
    select
        moved.partner_id,
        moved.status,
        moved.status_code,
        moved.day,
        sum(moved.tokens) as tokens,
        sum(moved.unseen) as unseen
    from moved
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
    counted.partner_id,
    counted.first_day + later as day,
    counted.status,
    cast(counted.status_code as smallint) as status_code,
    counted.tokens,
    zone.name as time_zone,
    counted.unseen as unseen_tokens,
    known.known_at,
    -- date_part, because extract would compute in numeric.
    greatest(
        date_part(
            'epoch',
            cast(counted.first_day + later + 1 as timestamp) at time zone zone.name
            - known.known_at
        ),
        0
    ) as stale_by_seconds
from counted
cross join zone
inner join account on account.partner_id = counted.partner_id
-- Until the next day on which the number changes, otherwise until today.
cross join lateral generate_series(
    0, coalesce(counted.next_day - 1, account.last_day) - counted.first_day
) as later
left join known
    on
        known.partner_id = counted.partner_id
        and known.day = counted.first_day + later
        and known.is_open = coalesce(counted.status_code in (0, 1, 2), false)
where counted.tokens > 0
