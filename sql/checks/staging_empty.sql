-- Staging holds only rows of walks that may still be published.
select
    staging.partner_id,
    staging.walk_id,
    count(*) as rows_left
from upload_token_staging as staging
where
    not exists (
        select 1 from sync_run as run
        where run.walk_id = staging.walk_id and run.partner_id = staging.partner_id
    )
    or exists (
        select 1 from sync_run as run
        where
            run.walk_id = staging.walk_id and run.partner_id = staging.partner_id
            and run.status in ('succeeded', 'refused', 'dry_run')
    )
group by staging.partner_id, staging.walk_id
