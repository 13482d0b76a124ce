-- Roles that were granted the published tables, and the views that they may not read (yet).
with table_of as (
    select
        relation.oid,
        relation.relname as name,
        relation.relowner as owner,
        relation.relacl as acl
    from pg_class as relation
    join pg_namespace as space on space.oid = relation.relnamespace
    where space.nspname = %(schema)s and relation.relkind = 'r'
),

reader as (
    select entry.grantee as oid
    from table_of
    cross join lateral aclexplode(table_of.acl) as entry
    where
        table_of.name in ('upload_token', 'upload_token_superseded', 'sync_run')
        and entry.privilege_type = 'SELECT'
        and entry.grantee not in (0, table_of.owner)
    group by entry.grantee
    having count(distinct table_of.name) = 3
)

select
    cast(pg_get_userbyid(reader.oid) as text) as role,
    array_agg(wanted.name order by wanted.name) as views
from reader
cross join unnest(cast(%(views)s as text[])) as wanted (name)
join pg_class as relation on relation.relname = wanted.name and relation.relkind = 'v'
join pg_namespace as space on space.oid = relation.relnamespace and space.nspname = %(schema)s
where not has_table_privilege(reader.oid, relation.oid, 'SELECT')
group by reader.oid
order by role
