-- The spans of the pages of open tokens add up to the open_coverage of the run.
select
    run.partner_id,
    run.run_id,
    cast(run.open_coverage as text) as claimed,
    cast(proved.coverage as text) as proved
from sync_run as run
join (
    select
        run_id,
        coalesce(
            -- Only a page of all three open statuses proves where open tokens are.
            range_agg(span) filter (where cast(filter as jsonb) ->> 'statusIn' = '0,1,2'),
            '{}'
        ) as coverage
    from sync_page
    group by run_id
) as proved on proved.run_id = run.run_id
where run.status = 'succeeded' and run.open_coverage <> proved.coverage
