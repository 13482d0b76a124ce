-- Privileges in the schema that a role has or can come to, with the roles that it has them through.
with powers as (
    select
        oid,
        rolname as name
    from pg_roles
    -- Also those that it must SET ROLE to: they are a word away.
    where pg_has_role(cast(%(role)s as name), oid, 'MEMBER')
    union all
    select
        cast(0 as oid),
        'PUBLIC'
),

relation as (
    select
        found.oid,
        found.relname as name,
        found.relkind as kind
    from pg_class as found
    join pg_namespace as space on space.oid = found.relnamespace
    where
        space.nspname = %(schema)s
        and (found.relkind in ('v', 'S') or found.relname = any(cast(%(tables)s as text[])))
        and found.relkind in ('r', 'p', 'v', 'S')
),

table_privilege as (
    select
        unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'])
            as privilege
    union all
    select 'MAINTAIN' where cast(current_setting('server_version_num') as integer) >= 170000
),

held as (
    select
        relation.kind,
        relation.name,
        cast(null as name) as column_name,
        table_privilege.privilege,
        powers.name as through
    from relation
    cross join table_privilege
    cross join powers
    where
        relation.kind <> 'S'
        and has_table_privilege(powers.oid, relation.oid, table_privilege.privilege)
    union all
    select
        relation.kind,
        relation.name,
        attribute.attname,
        column_privilege.privilege,
        powers.name
    from relation
    join pg_attribute as attribute
        on attribute.attrelid = relation.oid
        and attribute.attnum > 0
        and not attribute.attisdropped
    cross join (values ('SELECT'), ('INSERT'), ('UPDATE'), ('REFERENCES'))
        as column_privilege (privilege)
    cross join powers
    where
        relation.kind <> 'S'
        and has_column_privilege(
            powers.oid, relation.oid, attribute.attnum, column_privilege.privilege
        )
        and not has_table_privilege(powers.oid, relation.oid, column_privilege.privilege)
    union all
    select
        relation.kind,
        relation.name,
        null,
        sequence_privilege.privilege,
        powers.name
    from relation
    cross join (values ('USAGE'), ('SELECT'), ('UPDATE')) as sequence_privilege (privilege)
    cross join powers
    where
        relation.kind = 'S'
        and has_sequence_privilege(powers.oid, relation.oid, sequence_privilege.privilege)
    union all
    select
        'n',
        null,
        null,
        schema_privilege.privilege,
        powers.name
    from pg_namespace as space
    cross join (values ('CREATE'), ('USAGE')) as schema_privilege (privilege)
    cross join powers
    where
        space.nspname = %(schema)s
        and has_schema_privilege(powers.oid, space.oid, schema_privilege.privilege)
)

select
    cast(kind as text) as kind,
    name,
    column_name,
    privilege,
    array_agg(cast(through as text) order by through) as through
from held
group by kind, name, column_name, privilege
order by name nulls first, column_name nulls first, privilege
