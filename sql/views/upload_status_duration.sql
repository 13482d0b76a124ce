-- How long each token was in each status: at least and at most, also where no run saw it.
--
-- One row for each token and status that it was seen in, and for each one that it must have passed,
-- or may have: between two states that runs saw, the statuses on the way from PENDING over
-- PARTIAL_UPLOAD and FULL_UPLOAD to CLOSED (CLOSED: before DELETED and NOT_LISTED).  Most uploads
-- are first seen CLOSED: durations of the tokens that were seen in an open status are those of the
-- slowest, so count the others too.  The median over all rows of a status lies between those of
-- at_least_seconds and at_most_seconds.  A status that was left and entered again between two looks
-- counts as not left.  Of versions that were pruned there are no rows, even if the token still is in
-- the status.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- status: Name of the status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED while it was not listed.
-- status_code: Its code; NULL for NOT_LISTED and UNKNOWN.
-- seen: Whether a run saw the token in it; if not, at_least_seconds is 0.
-- is_current: Whether it is in it, as far as is known: then the duration is not over, and only
--   at_least_seconds is known.
-- at_least_seconds: From when it was first seen in the status to the beginning of the last
--   published walk that still saw it; 0 if it may have passed in no time.
-- at_most_seconds: From the beginning of the walk that last saw the state before (or created_at)
--   to when the state after was seen; NULL if is_current.
-- estimated_at_most_seconds: The same with upload_token_status_history.happened_at, which is mostly
--   Kaltura's own updated_at, as far as there is one: much closer, not certain.  Of statuses that
--   were passed together each has the time of all.  NULL if is_current.
-- user_id: Kaltura user, of the latest version.
-- created_at: When Kaltura made the token; whole seconds.
create or replace view upload_status_duration with (security_invoker = true) as
with looked as materialized (
    select
        account.partner_id,
        of_kind.kind,
        latest.run_id,
        latest.began_at
    from (select distinct run.partner_id from sync_run as run) as account
    cross join (values ('open'), ('listed'), ('not_listed')) as of_kind (kind)
    cross join lateral (
        select
            run.run_id,
            walk.started_at as began_at
        from sync_run as run
        inner join sync_run as walk
            on walk.partner_id = run.partner_id and walk.run_id = run.walk_id
        where
            run.partner_id = account.partner_id
            and run.published_at is not null
            and case of_kind.kind
                when 'open' then run.coverage + run.open_coverage = '{(,)}'
                when 'listed' then run.coverage = '{(,)}'
                -- A rejected row of an absent token may have been its return.
                else run.coverage = '{(,)}' and run.rejected = 0
            end
        order by run.published_at desc
        limit 1
    ) as latest
),

-- Changes, and versions: the first ones of these are chosen below, because a condition here would
-- keep the keys of tokens from the indexes.  Codes instead of names, and few columns, because they
-- are sorted: -1 is UNKNOWN, -2 NOT_LISTED.
moment as (
    select
        logged.partner_id,
        logged.token_id,
        logged.version,
        true as is_logged,
        logged.from_status is null as is_first,
        case
            when logged.to_status_code is not null then logged.to_status_code
            when logged.change_kind = 'absent' then -2
            else -1
        end as code,
        case
            when logged.from_status is null then -1
            when logged.from_status = 'NOT_LISTED' then -2
            when logged.from_status_code in (0, 1, 2, 3) then logged.from_status_code
            else 4
        end as from_code,
        logged.happened_after,
        logged.happened_at,
        logged.happened_before
    from upload_token_status_moment_log as logged
    union all
    select
        sighted.partner_id,
        sighted.token_id,
        sighted.version,
        false as is_logged,
        true as is_first,
        coalesce(sighted.status, -1) as code,
        -1 as from_code,
        least(sighted.created_at, sighted.observed_at) as happened_after,
        sighted.first_happened_at as happened_at,
        sighted.observed_at as happened_before
    from upload_token as sighted
    union all
    select
        sighted.partner_id,
        sighted.token_id,
        sighted.version,
        false as is_logged,
        true as is_first,
        coalesce(sighted.status, -1) as code,
        -1 as from_code,
        least(sighted.created_at, sighted.observed_at) as happened_after,
        sighted.first_happened_at as happened_at,
        sighted.observed_at as happened_before
    from upload_token_superseded as sighted
),

state as (
    select
        token.partner_id,
        token.token_id,
        token.user_id,
        token.created_at,
        moment.is_first,
        moment.code,
        -- The statuses passed on the way come after this one.  What is listed again may be as it was
        -- listed last, and have gone on from there.
        case
            when moment.from_code <> -2 then moment.from_code
            when lag(moment.from_code) over one_token >= 0
                then lag(moment.from_code) over one_token - 1
            else 4
        end as from_code,
        moment.happened_after,
        moment.happened_at,
        moment.happened_before,
        lead(moment.happened_after) over one_token as left_after,
        -- Nothing says when it disappeared, but between which looks.
        lead(
            case when moment.code = -2 then moment.happened_before else moment.happened_at end
        ) over one_token as left_at,
        lead(moment.happened_before) over one_token as left_before
    from (
        -- In two parts, each with an index by created_at.
        select
            present.partner_id,
            present.token_id,
            present.user_id,
            present.created_at
        from upload_token as present
        where present.is_listed
        union all
        select
            gone.partner_id,
            gone.token_id,
            gone.user_id,
            gone.created_at
        from upload_token as gone
        where not gone.is_listed
    ) as token
    inner join moment on moment.partner_id = token.partner_id and moment.token_id = token.token_id
    where moment.is_logged or moment.version = 1
    window one_token as (
        -- With the columns that follow from the key, so that conditions on them are applied first;
        -- the token before the account, because it is the first column that makes sorting fast.
        partition by token.token_id, token.partner_id, token.created_at, token.user_id
        order by moment.version
    )
),

-- Of each state, the stay in it, and in the statuses that were passed on the way to it.
stay as (
    select
        state.partner_id,
        state.token_id,
        state.user_id,
        state.created_at,
        coalesce(passed.code, state.code) as code,
        passed.code is null as seen,
        passed.code is null and state.left_before is null as is_current,
        case when passed.code is null then state.happened_before end as surely_from,
        case
            when passed.code is not null then null
            when state.left_before is not null then state.left_after
            else (
                select looked.began_at from looked
                where
                    looked.partner_id = state.partner_id
                    and looked.kind = case
                        when state.code = -2 then 'not_listed'
                        when state.code in (0, 1, 2) then 'open'
                        else 'listed'
                    end
                    and not exists (
                        select 1 from unobserved_token as missed
                        where
                            missed.partner_id = state.partner_id
                            and missed.token_id = state.token_id
                            and missed.run_id = looked.run_id
                    )
            )
        end as surely_to,
        state.happened_after as earliest_from,
        case when passed.code is null then state.left_before else state.happened_before end
        as latest_to,
        -- What was first seen in a status may have been in it since it was made: updated_at moves
        -- with every part of the file.
        case
            when passed.code is null and not state.is_first and state.code <> -2
                then state.happened_at
            else state.happened_after
        end as estimated_from,
        case when passed.code is null then state.left_at else state.happened_at end as estimated_to
    from state
    inner join unnest(cast('{null,0,1,2,3}' as smallint [])) as passed (code)
        on
            passed.code is null
            or (
                passed.code > state.from_code
                and passed.code < case
                    when state.code in (0, 1, 2, 3) then state.code
                    when state.code in (5, -2) then 4
                    else 3
                end
            )
),

summed as (
    select
        stay.token_id,
        stay.partner_id,
        stay.created_at,
        stay.user_id,
        stay.code,
        bool_or(stay.seen) as seen,
        bool_or(stay.is_current) as is_current,
        -- date_part, because extract would compute in numeric.
        sum(greatest(coalesce(date_part('epoch', stay.surely_to - stay.surely_from), 0), 0))
        as at_least_seconds,
        sum(date_part('epoch', stay.latest_to - stay.earliest_from)) as at_most_seconds,
        sum(date_part('epoch', stay.estimated_to - stay.estimated_from))
        as estimated_at_most_seconds
    from stay
    group by stay.token_id, stay.partner_id, stay.created_at, stay.user_id, stay.code
)

select
    summed.partner_id,
    summed.token_id,
    case
        when summed.code = -2 then 'NOT_LISTED'
        else upload_token_status_name(cast(nullif(summed.code, -1) as smallint))
    end as status,
    cast(case when summed.code >= 0 then summed.code end as smallint) as status_code,
    summed.seen,
    summed.is_current,
    summed.at_least_seconds,
    case when not summed.is_current then summed.at_most_seconds end as at_most_seconds,
    case when not summed.is_current then summed.estimated_at_most_seconds end
    as estimated_at_most_seconds,
    summed.user_id,
    summed.created_at
from summed
