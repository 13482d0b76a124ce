-- Privileges that a role has or can acquire in the schema, and the roles that it has them through.
with holder as (
    select oid, cast(rolname as text) as name
    from pg_roles
    -- Also those that it must SET ROLE to, unless only the role itself is asked for.
    where
        pg_has_role(cast(%(role)s as name), oid, 'MEMBER')
        and (rolname = %(role)s or not %(itself)s)
    union all
    select 0, 'PUBLIC' where not %(itself)s
),

-- From the catalog: to name an object of a schema without USAGE on it is an error.
relation as (
    select found.oid, found.relkind, space.nspname || '.' || found.relname as object
    from pg_class as found
    join pg_namespace as space on space.oid = found.relnamespace
    where
        space.nspname = %(schema)s
        and (
            found.relkind in ('v', 'S')
            or (found.relkind in ('r', 'p') and found.relname = any(cast(%(tables)s as text[])))
        )
),

item (kind, oid, object, attnum, attname, privileges) as (
    select
        'database', oid, 'database ' || datname, cast(null as smallint), cast(null as name),
        cast('{CONNECT,TEMPORARY}' as text[])
    from pg_database
    where datname = current_database()
    union all
    select 'schema', oid, 'schema ' || nspname, null, null, '{USAGE,CREATE}'
    from pg_namespace
    where nspname = %(schema)s
    union all
    select 'sequence', oid, object, null, null, '{USAGE,SELECT,UPDATE}'
    from relation
    where relkind = 'S'
    union all
    select
        'table', oid, object, null, null,
        '{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}' || case
            when cast(current_setting('server_version_num') as integer) >= 170000
                then cast('{MAINTAIN}' as text[])
        end
    from relation
    where relkind <> 'S'
    union all
    select 'column', relation.oid, object, attnum, attname, '{SELECT,INSERT,UPDATE,REFERENCES}'
    from relation
    join pg_attribute on attrelid = relation.oid and attnum > 0 and not attisdropped
    where relkind <> 'S'
)

select
    kind,
    privilege || coalesce(' (' || attname || ')', '') || ' on ' || object as privilege,
    -- The same on the whole table.
    privilege || ' on ' || object as on_object,
    array_agg(holder.name order by holder.name) as through
from item
cross join unnest(privileges) as each (privilege)
cross join holder
where
    case kind
        when 'database' then has_database_privilege(holder.oid, item.oid, privilege)
        when 'schema' then has_schema_privilege(holder.oid, item.oid, privilege)
        when 'sequence' then has_sequence_privilege(holder.oid, item.oid, privilege)
        when 'table' then has_table_privilege(holder.oid, item.oid, privilege)
        else
            has_column_privilege(holder.oid, item.oid, attnum, privilege)
            and not has_table_privilege(holder.oid, item.oid, privilege)
    end
group by kind, object, attname, privilege
order by kind <> 'schema', object, attname nulls first, privilege
