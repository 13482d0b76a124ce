-- What a role lacks of the privileges asked for: without USAGE on the schema, that alone is named.
with me as (
    select oid from pg_roles where rolname = coalesce(cast(%(role)s as text), current_user)
),

space as (
    -- From the catalog: a name in a schema out of reach would be an error, and not an answer.
    select
        me.oid as me,
        found.oid
    from me
    left join pg_namespace as found on found.nspname = %(schema)s
),

lacking as (
    select
        0 as place,
        cast(0 as bigint) as ordinal,
        'USAGE on schema ' || cast(%(schema)s as text) as missing
    from space
    where not coalesce(has_schema_privilege(me, oid, 'USAGE'), false)
    union all
    select
        1,
        wanted.ordinal,
        wanted.privilege || ' on database ' || current_database()
    from me
    cross join unnest(cast(%(database)s as text[])) with ordinality as wanted (privilege, ordinal)
    where not has_database_privilege(me.oid, current_database(), wanted.privilege)
    union all
    select
        2,
        wanted.ordinal,
        wanted.privilege || ' on ' || cast(%(schema)s as text) || '.' || wanted.name
    from space
    cross join unnest(
        cast(%(tables)s as text[]), cast(%(privileges)s as text[])
    ) with ordinality as wanted (name, privilege, ordinal)
    left join pg_class as relation
        on relation.relnamespace = space.oid and relation.relname = wanted.name
    where not coalesce(has_table_privilege(me, relation.oid, wanted.privilege), false)
    union all
    select
        3,
        wanted.ordinal,
        'SELECT (' || wanted.name || ') on ' || cast(%(schema)s as text) || '.' || wanted.of_table
    from space
    cross join unnest(
        cast(%(of_tables)s as text[]), cast(%(columns)s as text[])
    ) with ordinality as wanted (of_table, name, ordinal)
    left join pg_class as relation
        on relation.relnamespace = space.oid and relation.relname = wanted.of_table
    left join pg_attribute as attribute
        on attribute.attrelid = relation.oid and attribute.attname = wanted.name
    where not coalesce(has_column_privilege(me, relation.oid, attribute.attnum, 'SELECT'), false)
)

select missing
from lacking
where place = 0 or not exists (select 1 from lacking as first where first.place = 0)
order by place, ordinal
