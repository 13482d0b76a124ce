-- How long each token was in each status: at least and at most, also where no run saw it.
--
-- One row for each token and status that it was seen in, and for each one that it must have passed,
-- or may have: between two states that runs saw, the statuses on the way from PENDING over
-- PARTIAL_UPLOAD and FULL_UPLOAD to CLOSED (CLOSED: before DELETED and NOT_LISTED; what failed and
-- is FULL_UPLOAD or CLOSED after that was PARTIAL_UPLOAD again).  Most uploads are first seen CLOSED:
-- durations of the tokens that were seen in an open status are those of the slowest, so count the
-- others too.  The median over all rows of a status lies between those of at_least_seconds and
-- at_most_seconds.  A status that was left and entered again between two looks counts as not left.
-- Of stays that ended with a version that was pruned before schema revision 0016 there are no rows;
-- since when the token is in a status may not be known, and then at_least_seconds is 0.
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
-- Each row of a token has a place: that of the first of its four numbers in earlier_stays, as
-- upload_token tells them; 0 for where it is now; below that, of a token that is still as it was first
-- seen, -1 for PENDING, -2 for PARTIAL_UPLOAD and so on, which it had passed before.  So the table is
-- read once for all of them.
select
    stay.partner_id,
    stay.token_id,
    case
        when stay.place > 0
            then case
                when stay.earlier_stays[stay.place] < 32768
                    then upload_token_status_name(
                        cast(stay.earlier_stays[stay.place] as smallint)
                    )
                when stay.earlier_stays[stay.place] = 32768 then 'NOT_LISTED'
                else 'UNKNOWN'
            end
        when stay.place = 0 then stay.status
        else upload_token_status_name(cast(-1 - stay.place as smallint))
    end as status,
    case
        when stay.place > 0
            then case
                when stay.earlier_stays[stay.place] < 32768
                    then cast(stay.earlier_stays[stay.place] as smallint)
            end
        when stay.place = 0 then stay.status_code
        else cast(-1 - stay.place as smallint)
    end as status_code,
    case
        when stay.place > 0 then stay.earlier_stays[stay.place + 1] >= 0
        else stay.place = 0
    end as seen,
    stay.place = 0 as is_current,
    case
        when stay.place > 0 then greatest(stay.earlier_stays[stay.place + 1], 0)
        when stay.place = 0 then stay.at_least_seconds
        else 0
    end as at_least_seconds,
    case
        when stay.place > 0 then stay.earlier_stays[stay.place + 2]
        when stay.place < 0 then stay.passed_at_most_seconds
    end as at_most_seconds,
    case
        when stay.place > 0 then stay.earlier_stays[stay.place + 3]
        when stay.place < 0 then stay.passed_estimated_at_most_seconds
    end as estimated_at_most_seconds,
    stay.user_id,
    stay.created_at
from (
    -- No other columns: each is copied for every row.
    select
        latest.partner_id,
        latest.token_id,
        latest.status,
        latest.status_code,
        latest.at_least_seconds,
        latest.user_id,
        latest.created_at,
        latest.earlier_stays,
        latest.passed_at_most_seconds,
        latest.passed_estimated_at_most_seconds,
        -- Four at most that were passed, and eight that are over.  Of an array, because Postgres
        -- expects 1,000 rows of generate_series.
        unnest(
            (cast('{-4,-3,-2,-1,0,1,5,9,13,17,21,25,29}' as integer []))[
                5 - latest.passed:5 + coalesce(cardinality(latest.earlier_stays) / 4, 0)
            ]
        ) as place
    from upload_status_now as latest
    where latest.went_back is not true
) as stay
union all
-- Those that may have been in a status twice.
select
    latest.partner_id,
    latest.token_id,
    summed.status,
    summed.status_code,
    summed.seen,
    summed.is_current,
    summed.at_least_seconds,
    summed.at_most_seconds,
    summed.estimated_at_most_seconds,
    latest.user_id,
    latest.created_at
from upload_status_now as latest
cross join lateral (
    select
        stay.status,
        stay.status_code,
        bool_or(stay.seen) as seen,
        bool_or(stay.is_current) as is_current,
        sum(stay.at_least_seconds) as at_least_seconds,
        case when not bool_or(stay.is_current) then sum(stay.at_most_seconds) end
        as at_most_seconds,
        case when not bool_or(stay.is_current) then sum(stay.estimated_at_most_seconds) end
        as estimated_at_most_seconds
    from (
        select
            latest.status,
            latest.status_code,
            true as seen,
            true as is_current,
            latest.at_least_seconds,
            null as at_most_seconds,
            null as estimated_at_most_seconds
        union all
        select
            case latest.earlier_stays[place]
                when 32768 then 'NOT_LISTED'
                when 32769 then 'UNKNOWN'
                else upload_token_status_name(cast(latest.earlier_stays[place] as smallint))
            end as status,
            case
                when latest.earlier_stays[place] < 32768
                    then cast(latest.earlier_stays[place] as smallint)
            end as status_code,
            latest.earlier_stays[place + 1] >= 0 as seen,
            false as is_current,
            greatest(latest.earlier_stays[place + 1], 0) as at_least_seconds,
            latest.earlier_stays[place + 2] as at_most_seconds,
            latest.earlier_stays[place + 3] as estimated_at_most_seconds
        from generate_series(1, cardinality(latest.earlier_stays), 4) as place
    ) as stay
    group by stay.status, stay.status_code
) as summed
where latest.went_back
