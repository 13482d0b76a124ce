-- A published run kept the rows that it rejected (until they or its pages are pruned).
select
    run.partner_id,
    run.run_id,
    run.rejected,
    coalesce(kept.rejected, 0) as rejected_kept
from sync_run as run
left join (
    -- A page that was read twice shows the row twice, possibly with other volatile values.
    select
        run_id,
        count(*) as rejected
    from (
        select distinct
            run_id,
            token_id,
            reason,
            created_second
        from rejected_row
    ) as distinct_row
    group by run_id
) as kept on kept.run_id = run.run_id
where
    run.status = 'succeeded'
    and exists (select 1 from sync_page as page where page.run_id = run.run_id)
    and run.rejected <> coalesce(kept.rejected, 0)
    and not exists (
        select 1 from pruning as pruned
        where
            pruned.partner_id = run.partner_id
            and pruned.kind = 'rejected'
            and pruned.horizon > run.started_at
    )
