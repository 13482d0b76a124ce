-- Where each token is now: its status, and for how long at least.
--
-- A part of upload_status_duration: query that.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- status: Name of the status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED if it is not listed.
-- status_code: Its code; NULL for NOT_LISTED and UNKNOWN.
-- at_least_seconds: From when it was first seen in the status to the beginning of the last
--   published walk that still saw it; 0 if that is not known.
-- user_id: Kaltura user, of the latest version.
-- created_at: When Kaltura made the token; whole seconds.
-- version: The version that brought the status; NULL: not known.
-- earlier_stays: Stays that are over, as in upload_token.
-- went_back: As in upload_token.
-- passed: How many statuses it had passed before, from PENDING on, if it is listed and still as it
--   was first seen; 0 otherwise.
-- passed_at_most_seconds: Of each of these, from created_at to when the token was seen.
-- passed_estimated_at_most_seconds: The same with upload_token_status_history.happened_at.
create or replace view upload_status_now with (security_invoker = true) as
with looked as materialized (
    -- The last walk that read all of a kind.
    select
        account.partner_id,
        of_kind.kind,
        latest.run_id,
        latest.began_at,
        exists (
            select 1 from unobserved_token as missed
            where missed.partner_id = account.partner_id and missed.run_id = latest.run_id
        ) as missed_some
    from (select distinct run.partner_id from sync_run as run) as account
    -- Open ones, listed ones, those not listed.
    cross join (values (0), (1), (2)) as of_kind (kind)
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
                when 0 then run.coverage + run.open_coverage = '{(,)}'
                when 1 then run.coverage = '{(,)}'
                -- A rejected row of an absent token may have been its return.
                else run.coverage = '{(,)}' and run.rejected = 0
            end
        order by run.published_at desc
        limit 1
    ) as latest
)

select
    token.partner_id,
    token.token_id,
    case when token.is_listed then upload_token_status_name(token.status) else 'NOT_LISTED' end
    as status,
    case when token.is_listed then token.status end as status_code,
    -- date_part, because extract would compute in numeric.
    greatest(
        date_part(
            'epoch',
            case
                when
                    looked.missed_some and exists (
                        select 1 from unobserved_token as missed
                        where
                            missed.partner_id = token.partner_id
                            and missed.token_id = token.token_id
                            and missed.run_id = looked.run_id
                    )
                    then null
                else looked.began_at
            end
            - case
                when token.version = 1 then token.observed_at
                else token.status_happened_before
            end
        ),
        0
    ) as at_least_seconds,
    token.user_id,
    token.created_at,
    case when token.version = 1 then 1 else token.status_version end as version,
    case
        -- Not packed any more: a packed array would be unpacked for each of its numbers.
        when token.earlier_stays is not null
            then token.earlier_stays || cast('{}' as double precision [])
    end as earlier_stays,
    token.went_back,
    case
        when token.is_listed and (token.version = 1 or token.status_version = 1)
            then case
                when token.status in (0, 1, 2, 3) then token.status
                when token.status = 5 then 4
                else 3
            end
        else 0
    end as passed,
    date_part(
        'epoch',
        case
            when token.version = 1
                then token.observed_at - least(token.created_at, token.observed_at)
            else token.status_happened_before - token.status_happened_after
        end
    ) as passed_at_most_seconds,
    date_part(
        'epoch',
        case
            when token.version = 1
                then token.first_happened_at - least(token.created_at, token.observed_at)
            else token.status_happened_at - token.status_happened_after
        end
    ) as passed_estimated_at_most_seconds
from upload_token as token
left join looked
    on
        looked.partner_id = token.partner_id
        and looked.kind = case
            when not token.is_listed then 2
            when token.status in (0, 1, 2) then 0
            else 1
        end
-- Always so.  Each of the two has an index by created_at.
where token.is_listed or not token.is_listed
