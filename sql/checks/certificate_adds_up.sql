-- The spans of a published run's pages add up to its coverage (until pages are pruned).
select
    run.partner_id,
    run.run_id,
    cast(run.coverage as text) as claimed,
    cast(proved.coverage as text) as proved
from sync_run as run
left join (
    select
        run_id,
        -- A page of a filtered list proves nothing about the whole list.
        range_agg(span) filter (
            where not cast(filter as jsonb) ?| array['idIn', 'statusIn']
        ) as coverage
    from sync_page
    group by run_id
) as proved on proved.run_id = run.run_id
where
    run.status = 'succeeded'
    and run.pages_pruned = 0
    and run.coverage <> coalesce(proved.coverage, '{}')
