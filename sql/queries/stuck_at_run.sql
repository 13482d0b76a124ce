-- What was stuck at a given run, and what became of it?
-- Variables: partner_id, run_id
with seen as (
    select
        run.published_at as at_run,
        max(before.published_at) as at_run_before
    from sync_run as run
    inner join sync_run as before
        on
            run.partner_id = before.partner_id
            and run.published_at > before.published_at
            and sync_run_is_complete(before.coverage, before.holes)
    where run.partner_id = :partner_id and run.run_id = :run_id
    group by run.published_at
)

select
    status.name as status_then,
    count(*) as stuck,
    min(token.created_at) as oldest,
    count(*) filter (
        where now.is_listed and now.status in (0, 1, 2)
    ) as still_open,
    count(*) filter (where now.is_listed and now.status = 3) as closed,
    count(*) filter (
        where now.is_listed and now.status in (4, 5, 6)
    ) as failed,
    count(*) filter (where not now.is_listed) as gone
from seen
inner join upload_token_history as token
    on
        token.partner_id = :partner_id
        and token.valid_from <= seen.at_run_before
        and (token.valid_to > seen.at_run or token.is_current)
inner join upload_token as now
    on
        token.partner_id = now.partner_id
        and token.token_id = now.token_id
inner join upload_token_status as status on token.status = status.code
where token.is_listed and token.status in (0, 1, 2)
group by status.code, status.name
order by status.code
