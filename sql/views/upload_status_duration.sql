-- How long each token was in each status: at least and at most, also where no run saw it.
--
-- One row for each token and status that it was seen in, and for each one that it must have passed,
-- or may have: between two states that runs saw, the statuses on the way from PENDING over
-- PARTIAL_UPLOAD and FULL_UPLOAD to CLOSED (CLOSED: before DELETED and NOT_LISTED).  Most uploads
-- are first seen CLOSED: durations of the tokens that were seen in an open status are those of the
-- slowest, so count the others too.  The median over all rows of a status lies between those of
-- at_least_seconds and at_most_seconds.  A status that was left and entered again between two looks
-- counts as not left.  Of stays that ended with a version that was pruned before schema revision
-- 0016 there are no rows; since when the token is in a status may not be known, and then
-- at_least_seconds is 0.
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
-- Where tokens are now.
select
    latest.partner_id,
    latest.token_id,
    latest.status,
    latest.status_code,
    true as seen,
    true as is_current,
    latest.at_least_seconds,
    cast(null as double precision) as at_most_seconds,
    cast(null as double precision) as estimated_at_most_seconds,
    latest.user_id,
    latest.created_at
from upload_status_now as latest
where latest.went_back is not true
union all
-- What those that are as they were first seen had passed before.
select
    passed.partner_id,
    passed.token_id,
    passed.status,
    passed.status_code,
    false as seen,
    false as is_current,
    cast(0 as double precision) as at_least_seconds,
    passed.at_most_seconds,
    passed.estimated_at_most_seconds,
    passed.user_id,
    passed.created_at
from upload_status_passed as passed
union all
-- Where the others have been, as upload_token.earlier_stays tells it.
select
    earlier.partner_id,
    earlier.token_id,
    case
        when earlier.stays[earlier.place] < 32768
            then upload_token_status_name(cast(earlier.stays[earlier.place] as smallint))
        when earlier.stays[earlier.place] = 32768 then 'NOT_LISTED'
        else 'UNKNOWN'
    end as status,
    case
        when earlier.stays[earlier.place] < 32768
            then cast(earlier.stays[earlier.place] as smallint)
    end as status_code,
    earlier.stays[earlier.place + 1] >= 0 as seen,
    false as is_current,
    greatest(earlier.stays[earlier.place + 1], 0) as at_least_seconds,
    earlier.stays[earlier.place + 2] as at_most_seconds,
    earlier.stays[earlier.place + 3] as estimated_at_most_seconds,
    earlier.user_id,
    earlier.created_at
from (
    select
        token.partner_id,
        token.token_id,
        token.user_id,
        token.created_at,
        token.earlier_stays as stays,
        -- At most eight.  Of an array, because Postgres expects 1,000 rows of generate_series.
        unnest(
            (cast('{1,5,9,13,17,21,25,29}' as integer []))[:cardinality(token.earlier_stays) / 4]
        ) as place
    from (
        -- In two parts, each with an index by created_at.  What is joined is not packed any more: a
        -- packed array would be unpacked for each of its numbers.
        select
            present.partner_id,
            present.token_id,
            present.user_id,
            present.created_at,
            present.went_back,
            present.earlier_stays || cast('{}' as double precision []) as earlier_stays
        from upload_token as present
        where present.is_listed
        union all
        select
            gone.partner_id,
            gone.token_id,
            gone.user_id,
            gone.created_at,
            gone.went_back,
            gone.earlier_stays || cast('{}' as double precision []) as earlier_stays
        from upload_token as gone
        where not gone.is_listed
    ) as token
    where token.went_back is not true and token.earlier_stays is not null
) as earlier
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
