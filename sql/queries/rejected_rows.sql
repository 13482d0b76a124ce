-- Which rows were rejected, and why?
-- Variables: partner_id, since
select
    rejected.token_id,
    rejected.reason,
    count(distinct run.run_id) as runs,
    min(run.started_at) as first_at,
    max(run.started_at) as last_at,
    bool_or(token.token_id is not null) as otherwise_known
from rejected_row as rejected
inner join sync_run as run on rejected.run_id = run.run_id
left join upload_token as token
    on run.partner_id = token.partner_id and rejected.token_id = token.token_id
where run.partner_id = :partner_id and run.started_at >= cast(:'since' as timestamptz)
group by rejected.token_id, rejected.reason
order by first_at, rejected.token_id
