-- The known tokens that a published run covered without seeing are recorded, as many as it counted.
select
    run.partner_id,
    run.run_id,
    run.unobserved,
    coalesce(noted.tokens, 0) as unobserved_kept
from sync_run as run
left join (
    select
        run_id,
        count(*) as tokens
    from unobserved_token
    group by run_id
) as noted on noted.run_id = run.run_id
where run.status = 'succeeded' and run.unobserved <> coalesce(noted.tokens, 0)
