-- How long each token was in each status: at least and at most, also where no run saw it.
--
-- One row for each token and status that it was seen in, and for each one that it must have passed,
-- or may have: between two states that runs saw, the statuses on the way from PENDING over
-- PARTIAL_UPLOAD and FULL_UPLOAD to CLOSED (CLOSED: before DELETED and NOT_LISTED).  Most uploads
-- are first seen CLOSED: durations of the tokens that were seen in an open status are those of the
-- slowest, so count the others too.  The median over all rows of a status lies between those of
-- at_least_seconds and at_most_seconds.  A status that was left and entered again between two looks
-- counts as not left.  Of stays that ended with a version that was pruned there are no rows; since
-- when the token is in a status may not be known, and then at_least_seconds is 0.
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
-- Nearly every token was in no status twice: nothing has to be summed up.
select
    stay.partner_id,
    stay.token_id,
    stay.status,
    stay.status_code,
    stay.seen,
    stay.is_current,
    stay.at_least_seconds,
    stay.at_most_seconds,
    stay.estimated_at_most_seconds,
    stay.user_id,
    stay.created_at
from upload_status_stay as stay
where
    not exists (
        select 1 from upload_token_status_moment_log as back
        where
            back.partner_id = stay.partner_id
            and back.token_id = stay.token_id
            -- The condition of an index.
            and (
                back.change_kind = 'absent'
                or (back.from_status_code >= 0 and back.to_status_code > back.from_status_code)
            ) is not true
            -- Always so, by a constraint.  Postgres takes it to be so of a ninth, and sees that such
            -- tokens are few, which the condition above does not tell it.
            and back.happened_after <= back.happened_at
            and back.happened_at <= back.happened_before
    )
union all
select
    token.partner_id,
    token.token_id,
    summed.status,
    summed.status_code,
    summed.seen,
    summed.is_current,
    summed.at_least_seconds,
    summed.at_most_seconds,
    summed.estimated_at_most_seconds,
    token.user_id,
    token.created_at
from (
    select distinct
        back.partner_id,
        back.token_id
    from upload_token_status_moment_log as back
    where
        (
            back.change_kind = 'absent'
            or (back.from_status_code >= 0 and back.to_status_code > back.from_status_code)
        ) is not true
) as returned
inner join (
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
    on token.partner_id = returned.partner_id and token.token_id = returned.token_id
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
    from upload_status_stay as stay
    -- Of both, so that it is computed of what is in both.
    where stay.partner_id = returned.partner_id and stay.token_id = token.token_id
    group by stay.status, stay.status_code
) as summed
