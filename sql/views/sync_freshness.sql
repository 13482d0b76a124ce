-- How fresh and how complete the warehouse is, one row per account.
--
-- Complete is a published run that covered all of createdAt, except what the service
-- could not return or keep still (positions and busy seconds, recorded as holes).  Dry runs do not count as runs.
-- partner_id: Kaltura account (partner).
-- last_published_at: Publication timestamp of the last published run of any mode.
-- last_complete_at: Publication timestamp of the last complete one.
-- age: Now minus last_published_at.
-- complete_age: Now minus last_complete_at.
-- last_run_status: running, succeeded, refused, failed or abandoned: of the newest run, as
--   sync_run_state() tells it.
-- running: Whether a run is at work or starting: one whose last heartbeat is less than 15 minutes
--   old (the default of ETL_LEASE_SECONDS).
-- tokens_listed: Tokens that the service lists, as far as is known.
-- tokens_known: Tokens ever seen.
-- unreadable: Tokens that the last complete run could not read; a second that kept changing counts
--   as one.
-- rejected: Rows that the last complete run did not load.
-- certificate: Coverage of the last complete run: the seconds of createdAt it read; {(,)} is all.
-- open_seen_at: Beginning of the last published walk that read all open tokens; what is said of
--   them (stuck, abandoned) holds as of then.
-- age_seconds: age in seconds.
-- complete_age_seconds: complete_age in seconds.
create or replace view sync_freshness with (security_invoker = true) as
select
    account.partner_id,
    published.published_at as last_published_at,
    complete.published_at as last_complete_at,
    now() - published.published_at as age,
    now() - complete.published_at as complete_age,
    newest.status as last_run_status,
    exists (
        select 1 from sync_run as run
        where
            run.partner_id = account.partner_id
            and run.status = 'running'
            -- As it must be: this lets the index of such runs find it.
            and run.published_at is null
            and sync_run_state(run.status, run.heartbeat_at) = 'running'
    ) as running,
    -- Those not listed are few.
    known.tokens - (
        select count(*) from upload_token as token
        where token.partner_id = account.partner_id and not token.is_listed
    ) as tokens_listed,
    known.tokens as tokens_known,
    complete.unreadable,
    complete.rejected,
    cast(complete.coverage as text) as certificate,
    open_seen.started_at as open_seen_at,
    -- date_part, because extract would compute in numeric.
    date_part('epoch', now() - published.published_at) as age_seconds,
    date_part('epoch', now() - complete.published_at) as complete_age_seconds
from (select distinct run.partner_id from sync_run as run) as account
left join lateral (
    select count(*) as tokens from upload_token as token
    where token.partner_id = account.partner_id
) as known on true
left join lateral (
    select sync_run_state(run.status, run.heartbeat_at) as status
    from sync_run as run
    where run.partner_id = account.partner_id and run.status not in ('dry_run', 'skipped')
    order by run.run_id desc
    limit 1
) as newest on true
left join lateral (
    select run.published_at from sync_run as run
    where run.partner_id = account.partner_id and run.published_at is not null
    order by run.published_at desc
    limit 1
) as published on true
left join lateral (
    select
        run.published_at,
        run.unreadable,
        run.rejected,
        run.coverage
    from sync_run as run
    where
        run.partner_id = account.partner_id
        and run.published_at is not null
        -- A case: the planner takes an equality of ranges to be rare, and would sort all runs.
        and case when sync_run_is_complete(run.coverage, run.holes) then true end
    order by run.published_at desc
    limit 1
) as complete on true
left join lateral (
    select walk.started_at
    from sync_run as run
    inner join sync_run as walk
        on walk.partner_id = run.partner_id and walk.run_id = run.walk_id
    where
        run.partner_id = account.partner_id
        and run.published_at is not null
        and case
            when run.coverage + run.open_coverage = '{(,)}' then true
            when run.holes <> '[]'
                then run.coverage + run.open_coverage + sync_tolerated_holes(run.holes, true)
                = '{(,)}'
        end
    order by run.published_at desc
    limit 1
) as open_seen on true
