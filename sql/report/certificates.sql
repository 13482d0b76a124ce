-- What the last complete run and the last published run read; one row if they are the same.
--
-- busy_seconds: of unreadable, those that stand for a second that kept changing, not for an upload.
select
    run.run_id,
    coalesce(run.overrides ->> 'replayed_mode', run.mode) as mode,
    walk.started_at as walk_started_at,
    run.published_at,
    cast(run.coverage as text) as coverage,
    cast(run.open_coverage as text) as open_coverage,
    run.unreadable,
    (
        select coalesce(sum(cast(hole ->> 'tokens' as bigint)), 0)
        from jsonb_array_elements(run.holes) as hole
        where hole ->> 'reason' = 'tie_group'
    ) as busy_seconds,
    run.rejected,
    run.published_at = freshness.last_complete_at as is_complete
from sync_freshness as freshness
inner join sync_run as run
    on
        run.partner_id = freshness.partner_id
        and run.published_at in (freshness.last_complete_at, freshness.last_published_at)
inner join sync_run as walk
    on walk.partner_id = run.partner_id and walk.run_id = run.walk_id
where freshness.partner_id = %(partner_id)s
order by run.published_at;
