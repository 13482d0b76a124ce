-- Changes of status or presence, derived anew from the versions and the ledger.
--
-- Query upload_token_status_history instead: it tells the same as it was when published, in order
-- and much faster.  verify compares the two.  A version whose predecessor was pruned has from_status
-- NULL.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- version: The version that brought the change; 1 is the first one seen.
-- from_status: Name of the status before; NOT_LISTED after an absence; NULL when first seen.
-- to_status: Name of the new status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED when it disappeared.
-- from_status_code: Code of from_status; NULL when first seen, and for NOT_LISTED and UNKNOWN.
-- to_status_code: Code of to_status; NULL for NOT_LISTED and UNKNOWN.
-- change_kind: first_seen, changed, absent or relisted.
-- happened_at: Best estimate of when it changed; always between the next two.  It may be before
--   that of the change before: upload_token_status_history then tells that one.
-- happened_after: Not before this: when the last published walk that saw the old state began.
-- happened_before: Not after this: when the reply that showed the new state had arrived.
-- valid_from: Publication timestamp: since when the warehouse knows of it.
-- run_id: The run that published it.
create or replace view upload_token_status_moment with (security_invoker = true) as
select
    became.partner_id,
    became.token_id,
    became.version,
    case
        when was.version is null then null
        when not was.is_listed then 'NOT_LISTED'
        else coalesce(was_name.name, 'UNKNOWN_' || was.status, 'UNKNOWN')
    end as from_status,
    case
        when not became.is_listed then 'NOT_LISTED'
        else coalesce(became_name.name, 'UNKNOWN_' || became.status, 'UNKNOWN')
    end as to_status,
    case when was.is_listed then was.status end as from_status_code,
    case when became.is_listed then became.status end as to_status_code,
    became.change_kind,
    case
        -- Every token begins as PENDING, and a token never seen otherwise still was.
        when became.version = 1 and became.status = 0 then bounds.happened_after
        -- updated_at is in whole seconds: the second may begin before the interval does.
        when
            became.is_listed
            and became.updated_at + interval '1 second' > bounds.happened_after
            and became.updated_at <= bounds.happened_before
            then greatest(became.updated_at, bounds.happened_after)
        -- In seconds: days would make it depend on the session's time zone.
        else bounds.happened_after + make_interval(
            secs => date_part('epoch', bounds.happened_before - bounds.happened_after) / 2
        )
    end as happened_at,
    bounds.happened_after,
    bounds.happened_before,
    became.valid_from,
    became.run_id
from upload_token_history as became
inner join sync_run as run_now on run_now.run_id = became.run_id
left join upload_token_superseded as was
    on
        was.partner_id = became.partner_id
        and was.token_id = became.token_id
        and was.version = became.version - 1
left join upload_token_status as became_name on became_name.code = became.status
left join upload_token_status as was_name on was_name.code = was.status
-- The previously published run: the same for all versions of a run, and mostly the one wanted.
-- Runs of an account publish in the order of their numbers.  Each of these joins gives exactly one
-- row, so that Postgres can remove them if the times are not selected.
left join lateral (
    select max(run.run_id) as run_id
    from sync_run as run
    where
        run.partner_id = run_now.partner_id
        and run.run_id < run_now.run_id
        and run.published_at is not null
) as before on true
left join sync_run as run_before on run_before.run_id = before.run_id
left join sync_run as walk_before
    on
        walk_before.partner_id = run_before.partner_id
        and walk_before.run_id = run_before.walk_id
left join unobserved_token as not_seen
    on
        not_seen.partner_id = became.partner_id
        and not_seen.token_id = became.token_id
        and not_seen.run_id = run_before.run_id
left join lateral (
    select
        run_before.run_id = was.run_id
        or (
            not_seen.run_id is null
            and (
                run_before.coverage @> cast(date_part('epoch', was.created_at) as bigint)
                or (
                    was.is_listed
                    and was.status in (0, 1, 2)
                    and run_before.open_coverage
                    @> cast(date_part('epoch', was.created_at) as bigint)
                )
            )
            -- A rejected row of an absent token may have been its return.
            and (was.is_listed or run_before.rejected = 0)
        ) as by_run_before
) as saw on true
-- Otherwise the last run that saw it: at the latest the one that published the old state.
left join lateral (
    select max(latest.started_at) as started_at
    from (
        select walk.started_at
        from sync_run as run
        inner join sync_run as walk
            on walk.partner_id = run.partner_id and walk.run_id = run.walk_id
        where
            was.version is not null
            and saw.by_run_before is not true
            and run.partner_id = was.partner_id
            and run.published_at >= was.valid_from
            and run.published_at < became.valid_from
            and (
                run.run_id = was.run_id
                or (
                    (
                        run.coverage @> cast(date_part('epoch', was.created_at) as bigint)
                        or (
                            was.is_listed
                            and was.status in (0, 1, 2)
                            and run.open_coverage
                            @> cast(date_part('epoch', was.created_at) as bigint)
                        )
                    )
                    and (was.is_listed or run.rejected = 0)
                    and not exists (
                        select 1 from unobserved_token as other
                        where
                            other.partner_id = was.partner_id
                            and other.token_id = was.token_id
                            and other.run_id = run.run_id
                    )
                )
            )
        order by run.published_at desc
        limit 1
    ) as latest
) as run_earlier on true
cross join lateral (
    select
        -- Without an earlier version, all that is certain is that the token did not exist before.
        least(
            case
                when was.version is null then became.created_at
                when saw.by_run_before then walk_before.started_at
                else coalesce(run_earlier.started_at, was.created_at)
            end,
            coalesce(became.absence_confirmed_at, became.observed_at)
        ) as happened_after,
        coalesce(became.absence_confirmed_at, became.observed_at) as happened_before
) as bounds
where became.change_kind <> 'changed' or 'status' = any(became.changed_columns)
