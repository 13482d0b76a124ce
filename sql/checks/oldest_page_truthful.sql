-- oldest_page_at of a run is that of its oldest page (until pages are pruned).
select
    run.partner_id,
    run.run_id,
    run.oldest_page_at,
    page.oldest_page_at as oldest_page_kept_at
from sync_run as run
left join (
    select
        run_id,
        min(requested_at) as oldest_page_at
    from sync_page
    group by run_id
) as page on page.run_id = run.run_id
where
    run.status = 'succeeded'
    and run.oldest_page_at is not null
    and run.pages_pruned = 0
    and run.oldest_page_at is distinct from page.oldest_page_at
