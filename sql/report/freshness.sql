-- How fresh and how complete the account is: one row, or none before its first run.
select
    freshness.*,
    history.published_runs,
    history.first_published_at,
    cast(freshness.last_published_at at time zone %(time_zone)s as date) as last_day,
    now() as read_at
from sync_freshness as freshness
cross join lateral (
    select
        count(*) as published_runs,
        min(run.published_at) as first_published_at
    from sync_run as run
    where run.partner_id = freshness.partner_id and run.published_at is not null
) as history
where freshness.partner_id = %(partner_id)s;
