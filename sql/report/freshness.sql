-- How fresh and how complete the account is, and which complete run came before the last: one row, or none.
--
-- since_*: the last complete run before the last complete one; NULL if there was none.
select
    freshness.*,
    history.published_runs,
    history.first_published_at,
    since.published_at as since_published_at,
    since.walk_started_at as since_seen_at,
    cast(freshness.last_published_at at time zone %(time_zone)s as date) as last_day,
    cast(freshness.open_seen_at at time zone %(time_zone)s as date) as open_seen_day,
    now() as read_at
from sync_freshness as freshness
cross join lateral (
    select
        count(*) as published_runs,
        min(run.published_at) as first_published_at
    from sync_run as run
    where run.partner_id = freshness.partner_id and run.published_at is not null
) as history
left join lateral (
    select
        run.published_at,
        walk.started_at as walk_started_at
    from sync_run as run
    inner join sync_run as walk
        on walk.partner_id = run.partner_id and walk.run_id = run.walk_id
    where
        run.partner_id = freshness.partner_id
        and run.published_at < freshness.last_complete_at
        and sync_run_is_complete(run.coverage, run.holes)
    order by run.published_at desc
    limit 1
) as since on true
where freshness.partner_id = %(partner_id)s;
