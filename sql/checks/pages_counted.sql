-- The ledger counts the pages of a published run and the rows on them (until pages are pruned).
select
    run.partner_id,
    run.run_id,
    run.pages,
    counted.pages as pages_kept,
    run.rows_read,
    counted.rows_read as rows_on_pages
from sync_run as run
join (
    select
        run_id,
        count(*) as pages,
        sum(rows) as rows_read
    from sync_page
    group by run_id
) as counted on counted.run_id = run.run_id
where
    run.status = 'succeeded'
    and (run.pages <> counted.pages or run.rows_read <> counted.rows_read)
