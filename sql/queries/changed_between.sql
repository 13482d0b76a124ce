-- What changed between two runs?
-- Variables: run_before, run_id
select
    case
        when before.token_id is null then '(none)'
        when not before.is_listed then 'NOT_LISTED'
        else coalesce(before_name.name, 'UNKNOWN_' || before.status, 'UNKNOWN')
    end as was,
    case
        when not after.is_listed then 'NOT_LISTED'
        else coalesce(after_name.name, 'UNKNOWN_' || after.status, 'UNKNOWN')
    end as became,
    count(*) as tokens,
    min(after.token_id) as for_example
from sync_run as run
inner join sync_run as run_before on run.partner_id = run_before.partner_id
inner join lateral upload_token_as_of(run.published_at) as after
    on run.partner_id = after.partner_id
left join lateral upload_token_as_of(run_before.published_at) as before
    on after.partner_id = before.partner_id and after.token_id = before.token_id
left join upload_token_status as before_name on before.status = before_name.code
left join upload_token_status as after_name on after.status = after_name.code
where
    run.run_id = :run_id
    and run_before.run_id = :run_before
    and (
        before.is_listed is distinct from after.is_listed
        or before.status is distinct from after.status
    )
group by 1, 2
order by 3 desc, 1, 2
