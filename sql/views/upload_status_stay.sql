-- Each stay of a token in a status, and each status that it passed between two looks.
--
-- upload_status_duration sums them up per token and status, and says what they mean: query that.  It
-- keeps what ended with a version that was pruned, of which there are no rows here.  A token that was
-- in a status twice has two rows of it here.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- status: Name of the status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED while it was not listed.
-- status_code: Its code; NULL for NOT_LISTED and UNKNOWN.
-- seen: Whether a run saw the token in it; if not, at_least_seconds is 0.
-- is_current: Whether it is in it, as far as is known: then the stay is not over, and only
--   at_least_seconds is known.
-- at_least_seconds: From when it was first seen in the status to the beginning of the last
--   published walk that still saw it; 0 if it may have passed in no time, or is not known.
-- at_most_seconds: From the beginning of the walk that last saw the state before (or created_at)
--   to when the state after was seen; NULL if is_current.
-- estimated_at_most_seconds: The same with upload_token_status_history.happened_at; NULL if
--   is_current.
-- user_id: Kaltura user, of the latest version.
-- created_at: When Kaltura made the token; whole seconds.
-- version: The version that brought the status, or on the way to which it was passed; NULL: not
--   known.
create or replace view upload_status_stay with (security_invoker = true) as
-- Where tokens are now, as the last walk saw them that read all of their kind.
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
    latest.created_at,
    latest.version
from upload_status_now as latest
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
    passed.created_at,
    1 as version
from upload_status_passed as passed
union all
-- The others before they were first seen.
select
    moment.partner_id,
    moment.token_id,
    passed.name as status,
    passed.code as status_code,
    false as seen,
    false as is_current,
    cast(0 as double precision) as at_least_seconds,
    date_part('epoch', moment.from_happened_before - moment.from_happened_after)
    as at_most_seconds,
    date_part('epoch', moment.from_happened_at - moment.from_happened_after)
    as estimated_at_most_seconds,
    latest.user_id,
    moment.created_at,
    1 as version
from upload_token_status_moment_log as moment
inner join upload_token_status as passed
    on
        passed.code < case
            when moment.from_status_code in (0, 1, 2, 3) then moment.from_status_code
            when moment.from_status_code = 5 then 4
            else 3
        end
left join upload_token as latest
    on latest.partner_id = moment.partner_id and latest.token_id = moment.token_id
where
    moment.from_version = 1
    and moment.from_status_code is distinct from 0
    -- Always so, by a constraint.  Postgres takes it to be so of a third, and then looks up the users
    -- of a day's tokens by key, where it would read all of upload_token.
    and moment.happened_after <= moment.happened_before
union all
-- Stays that are over.
select
    moment.partner_id,
    moment.token_id,
    moment.from_status as status,
    moment.from_status_code as status_code,
    true as seen,
    false as is_current,
    greatest(date_part('epoch', moment.happened_after - moment.from_happened_before), 0)
    as at_least_seconds,
    date_part('epoch', moment.happened_before - moment.from_happened_after) as at_most_seconds,
    date_part(
        'epoch',
        -- Nothing says when it disappeared, but between which looks.
        case
            when moment.change_kind = 'absent' then moment.happened_before
            else moment.happened_at
        end
        -- What was first seen in a status may have been in it since it was made: updated_at moves
        -- with every part of the file.
        - case
            when moment.from_version = 1 or moment.change_kind = 'relisted'
                then moment.from_happened_after
            else moment.from_happened_at
        end
    ) as estimated_at_most_seconds,
    latest.user_id,
    moment.created_at,
    moment.from_version as version
from upload_token_status_moment_log as moment
left join upload_token as latest
    on latest.partner_id = moment.partner_id and latest.token_id = moment.token_id
where
    moment.from_status is not null
    and moment.from_happened_before is not null
    -- As above.
    and moment.happened_after <= moment.happened_before
union all
-- What they passed on the way to the status after.
select
    moment.partner_id,
    moment.token_id,
    passed.name as status,
    passed.code as status_code,
    false as seen,
    false as is_current,
    cast(0 as double precision) as at_least_seconds,
    date_part('epoch', moment.happened_before - moment.happened_after) as at_most_seconds,
    date_part('epoch', moment.happened_at - moment.happened_after) as estimated_at_most_seconds,
    latest.user_id,
    moment.created_at,
    moment.version
from upload_token_status_moment_log as moment
inner join upload_token_status as passed
    on
        passed.code > case
            when moment.from_status_code in (0, 1, 2) then moment.from_status_code
            -- What failed and went on was PARTIAL_UPLOAD again.
            when moment.from_status_code in (4, 6) and moment.to_status_code in (2, 3) then 0
            -- What is listed again may be as it was listed last, and have gone on from there.
            when moment.change_kind = 'relisted'
                then (
                    select
                        case
                            when absence.from_status_code in (0, 1, 2, 3)
                                then absence.from_status_code - 1
                            when
                                absence.from_status_code in (4, 6)
                                and moment.to_status_code in (2, 3)
                                then 0
                        end
                    from upload_token_status_moment_log as absence
                    where
                        absence.partner_id = moment.partner_id
                        and absence.token_id = moment.token_id
                        and absence.version = moment.from_version
                )
        end
        and passed.code < case
            when moment.to_status_code in (0, 1, 2, 3) then moment.to_status_code
            when moment.to_status_code = 5 or moment.change_kind = 'absent' then 4
            else 3
        end
left join upload_token as latest
    on latest.partner_id = moment.partner_id and latest.token_id = moment.token_id
where
    (
        moment.change_kind = 'relisted'
        or (
            moment.from_status_code in (0, 1, 2)
            and moment.to_status_code is distinct from moment.from_status_code + 1
        )
        or (moment.from_status_code in (4, 6) and moment.to_status_code in (2, 3))
    )
    -- As above.
    and moment.happened_after <= moment.happened_before
