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
    token.earlier_stays,
    token.went_back
from (
    -- In two parts, each with an index by created_at.
    select
        present.partner_id,
        present.token_id,
        present.is_listed,
        present.status,
        present.version,
        present.observed_at,
        present.status_version,
        present.status_happened_before,
        present.earlier_stays,
        present.went_back,
        present.user_id,
        present.created_at
    from upload_token as present
    where present.is_listed
    union all
    select
        gone.partner_id,
        gone.token_id,
        gone.is_listed,
        gone.status,
        gone.version,
        gone.observed_at,
        gone.status_version,
        gone.status_happened_before,
        gone.earlier_stays,
        gone.went_back,
        gone.user_id,
        gone.created_at
    from upload_token as gone
    where not gone.is_listed
) as token
left join looked
    on
        looked.partner_id = token.partner_id
        and looked.kind = case
            when not token.is_listed then 2
            when token.status in (0, 1, 2) then 0
            else 1
        end
