-- Views, functions and sequences of the schema that belong to the owner of its tables.
with ours as (
    select space.oid as space, quote_ident(space.nspname) || '.' as prefix, ledger.relowner as owner
    from pg_namespace as space
    join pg_class as ledger on ledger.relnamespace = space.oid and ledger.relname = 'sync_run'
    where space.nspname = %(schema)s
)

select
    case relation.relkind when 'v' then 'view' else 'sequence' end as kind,
    cast(relation.relname as text) as name,
    -- As GRANT and REVOKE name it.
    case relation.relkind when 'v' then 'table ' else 'sequence ' end
    || prefix || quote_ident(relation.relname) as object,
    -- Any other view shows each caller what its owner may read.
    exists (
        select from pg_options_to_table(relation.reloptions)
        where option_name = 'security_invoker' and cast(option_value as boolean)
    ) as with_callers_rights
from ours
join pg_class as relation on relation.relnamespace = space and relation.relowner = owner
where relation.relkind in ('v', 'S')
union all
select
    'function', proname,
    'function ' || prefix || quote_ident(proname)
    || '(' || pg_get_function_identity_arguments(pg_proc.oid) || ')',
    not prosecdef
from ours
join pg_proc on pronamespace = space and proowner = owner and prokind = 'f'
-- None of an extension.
where not exists (
    select from pg_depend
    where classid = cast('pg_proc' as regclass) and objid = pg_proc.oid and deptype = 'e'
)
order by kind, object
