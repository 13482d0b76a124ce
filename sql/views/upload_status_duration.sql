-- How long each token was in each status: at least and at most, also where no run saw it.
--
-- One row for each token and status that it was seen in, and for each one that it must have passed,
-- or may have: between two states that runs saw, the statuses on the way from PENDING over
-- PARTIAL_UPLOAD and FULL_UPLOAD to CLOSED (CLOSED: before DELETED and NOT_LISTED).  Most uploads
-- are first seen CLOSED: durations of the tokens that were seen in an open status are those of the
-- slowest, so count the others too.  The median over all rows of a status lies between those of
-- at_least_seconds and at_most_seconds.  A status that was left and entered again between two looks
-- counts as not left.
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
with looked as (
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

state as (
    select
        token.partner_id,
        token.token_id,
        token.user_id,
        token.created_at,
        moment.from_status,
        moment.from_status_code,
        moment.to_status,
        moment.to_status_code,
        moment.happened_after,
        moment.happened_at,
        moment.happened_before,
        lead(moment.happened_after) over one_token as left_after,
        -- Nothing says when it disappeared, but between which looks.
        lead(
            case
                when moment.to_status = 'NOT_LISTED' then moment.happened_before
                else moment.happened_at
            end
        ) over one_token as left_at,
        lead(moment.happened_before) over one_token as left_before
    from upload_token as token
    inner join upload_token_status_history as moment
        on moment.partner_id = token.partner_id and moment.token_id = token.token_id
    window one_token as (
        -- With the columns that follow from the key, so that conditions on them are applied first.
        partition by token.partner_id, token.token_id, token.user_id, token.created_at
        order by moment.version
    )
),

-- Of each state, the stay in it (-1), and in the statuses that were passed on the way to it.
stay as (
    select
        state.partner_id,
        state.token_id,
        state.user_id,
        state.created_at,
        case when passed.code = -1 then state.to_status else upload_token_status_name(passed.code) end
        as status,
        case when passed.code = -1 then state.to_status_code else passed.code end as status_code,
        passed.code = -1 as seen,
        passed.code = -1 and state.left_before is null as is_current,
        case when passed.code = -1 then state.happened_before end as surely_from,
        case
            when passed.code >= 0 then null
            when state.left_before is not null then state.left_after
            when
                not exists (
                    select 1 from unobserved_token as missed
                    where
                        missed.partner_id = state.partner_id
                        and missed.token_id = state.token_id
                        and missed.run_id = looked.run_id
                )
                then looked.began_at
        end as surely_to,
        state.happened_after as earliest_from,
        case when passed.code = -1 then state.left_before else state.happened_before end
        as latest_to,
        -- What was first seen in a status may have been in it since it was made: updated_at moves
        -- with every part of the file.
        case
            when
                passed.code = -1
                and state.from_status is not null
                and state.to_status <> 'NOT_LISTED'
                then state.happened_at
            else state.happened_after
        end as estimated_from,
        case when passed.code = -1 then state.left_at else state.happened_at end as estimated_to
    from state
    inner join unnest(cast('{-1,0,1,2,3}' as smallint [])) as passed (code)
        on
            passed.code = -1
            or (
                passed.code > case
                    when state.from_status is null then -1
                    when state.from_status_code in (0, 1, 2) then state.from_status_code
                    else 3
                end
                and passed.code < case
                    when state.to_status_code in (0, 1, 2, 3) then state.to_status_code
                    when state.to_status in ('DELETED', 'NOT_LISTED') then 4
                    else 3
                end
            )
    left join looked
        on
            looked.partner_id = state.partner_id
            and looked.kind = case
                when state.to_status = 'NOT_LISTED' then 'not_listed'
                when state.to_status_code in (0, 1, 2) then 'open'
                else 'listed'
            end
)

select
    stay.partner_id,
    stay.token_id,
    stay.status,
    stay.status_code,
    bool_or(stay.seen) as seen,
    bool_or(stay.is_current) as is_current,
    -- date_part, because extract would compute in numeric.
    sum(greatest(coalesce(date_part('epoch', stay.surely_to - stay.surely_from), 0), 0))
    as at_least_seconds,
    case
        when not bool_or(stay.is_current)
            then sum(date_part('epoch', stay.latest_to - stay.earliest_from))
    end as at_most_seconds,
    case
        when not bool_or(stay.is_current)
            then sum(date_part('epoch', stay.estimated_to - stay.estimated_from))
    end as estimated_at_most_seconds,
    stay.user_id,
    stay.created_at
from stay
group by
    stay.partner_id, stay.token_id, stay.status, stay.status_code, stay.user_id, stay.created_at
