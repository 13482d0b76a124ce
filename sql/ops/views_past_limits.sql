-- Views of any schema that show a role rows of the given tables by the rights of the views' owners.
with recursive reading as (
    select oid
    from pg_class
    where
        relnamespace = to_regnamespace(quote_ident(%(schema)s))
        and relname = any(cast(%(tables)s as text[]))
    union
    select rule.ev_class
    from reading
    join pg_depend as dependency
        on dependency.refclassid = cast('pg_class' as regclass)
        and dependency.refobjid = reading.oid
        and dependency.classid = cast('pg_rewrite' as regclass)
    join pg_rewrite as rule on rule.oid = dependency.objid
)

select space.nspname || '.' || found.relname as name
from reading
join pg_class as found on found.oid = reading.oid
join pg_namespace as space on space.oid = found.relnamespace
where
    (
        found.relkind = 'm'
        or (
            found.relkind = 'v'
            and not exists (
                select from pg_options_to_table(found.reloptions)
                where option_name = 'security_invoker' and cast(option_value as boolean)
            )
        )
    )
    and exists (
        select from pg_roles as reader
        where
            pg_has_role(cast(%(role)s as name), reader.oid, 'MEMBER')
            and has_any_column_privilege(reader.oid, found.oid, 'SELECT')
            and has_schema_privilege(reader.oid, space.oid, 'USAGE')
    )
order by name
