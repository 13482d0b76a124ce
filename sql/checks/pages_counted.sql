-- The ledger counts the pages of a published run and the rows on them; all are kept or pruned.
select
    run.partner_id,
    run.run_id,
    run.pages,
    coalesce(counted.pages, 0) as pages_kept,
    run.pages_pruned,
    run.rows_read,
    coalesce(counted.rows_read, 0) as rows_on_pages
from sync_run as run
left join (
    select
        run_id,
        count(*) as pages,
        sum(rows) as rows_read
    from sync_page
    group by run_id
) as counted on counted.run_id = run.run_id
where
    run.status = 'succeeded'
    and (
        run.pages <> coalesce(counted.pages, 0) + run.pages_pruned
        or (run.pages_pruned > 0 and counted.pages > 0)
        or (run.pages_pruned = 0 and run.rows_read <> coalesce(counted.rows_read, 0))
    )
