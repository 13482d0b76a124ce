-- The spans of the pages of open tokens add up to open_coverage (until pages are pruned).
select
    run.partner_id,
    run.run_id,
    cast(run.open_coverage as text) as claimed,
    cast(proved.coverage as text) as proved
from sync_run as run
left join (
    select
        run_id,
        -- Only a page of all three open statuses proves where open tokens are.
        range_agg(span) filter (where cast(filter as jsonb) ->> 'statusIn' = '0,1,2') as coverage
    from sync_page
    group by run_id
) as proved on proved.run_id = run.run_id
where
    run.status = 'succeeded'
    and run.pages_pruned = 0
    and run.open_coverage <> coalesce(proved.coverage, '{}')
