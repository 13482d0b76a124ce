-- Roles that were granted the published tables.
-- Of which kind they are, which views they may not read, and whether they may pass on what they have.
with ours as (
    select space.oid as space, ledger.relowner as owner
    from pg_namespace as space
    join pg_class as ledger on ledger.relnamespace = space.oid and ledger.relname = 'sync_run'
    where space.nspname = %(schema)s
),

grantee as (
    select entry.grantee as oid
    from ours
    join pg_class as published on published.relnamespace = space
    cross join lateral aclexplode(published.relacl) as entry
    where
        published.relname in ('upload_token', 'upload_token_superseded', 'sync_run')
        and entry.privilege_type = 'SELECT'
        and entry.grantee not in (0, owner)
    group by entry.grantee
    having count(distinct published.oid) = 3
)

select
    cast(pg_get_userbyid(grantee.oid) as text) as name,
    -- Only a loader writes, and no analyst reads what was not published.
    case
        when has_table_privilege(grantee.oid, token.oid, 'INSERT') then 'loader'
        when has_table_privilege(grantee.oid, staging.oid, 'SELECT') then 'auditor'
        else 'analyst'
    end as kind,
    array(
        select cast(view.relname as text)
        from pg_class as view
        where
            view.relnamespace = space
            and view.relowner = owner
            and view.relkind = 'v'
            -- Any other view shows each caller what its owner may read.
            and exists (
                select from pg_options_to_table(view.reloptions)
                where option_name = 'security_invoker' and cast(option_value as boolean)
            )
            and not has_table_privilege(grantee.oid, view.oid, 'SELECT')
        order by view.relname
    ) as views_left_behind,
    exists (
        select from (
            select nspacl as acl from pg_namespace
            where pg_namespace.oid = space
            union all
            select relacl from pg_class
            where relnamespace = space
            union all
            select attacl from pg_attribute
            join pg_class as relation on relation.oid = attrelid
            where relation.relnamespace = space and attacl is not null
        ) as given
        cross join lateral aclexplode(given.acl) as entry
        where entry.grantee = grantee.oid and entry.is_grantable
    ) as may_pass_on
from grantee
cross join ours
join pg_class as token on token.relnamespace = space and token.relname = 'upload_token'
join pg_class as staging
    on staging.relnamespace = space and staging.relname = 'upload_token_staging'
order by name
