-- A token was called absent only by a run that read its second completely, or asked for its id.
with outside as (
    select
        version.partner_id,
        version.token_id,
        version.version,
        version.run_id,
        version.created_at
    from upload_token_history as version
    join sync_run as run on run.run_id = version.run_id
    where
        version.change_kind = 'absent'
        and not run.coverage @> cast(floor(extract(epoch from version.created_at)) as bigint)
),

asked as (
    select distinct
        page.run_id,
        token_id
    from sync_page as page
    cross join lateral unnest(
        string_to_array(cast(page.filter as jsonb) ->> 'idIn', ',')
    ) as token_id
    where page.run_id in (select run_id from outside)
)

select
    partner_id,
    token_id,
    version,
    run_id,
    created_at
from outside
where
    exists (select 1 from sync_page as page where page.run_id = outside.run_id) -- else pruned
    and not exists (
        select 1 from asked
        where asked.run_id = outside.run_id and asked.token_id = outside.token_id
    )
