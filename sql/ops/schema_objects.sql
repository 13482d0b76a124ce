-- Views, functions and sequences of the schema that belong to the owner of its tables.
with ours as (
    select
        space.oid as space,
        ledger.relowner as owner
    from pg_namespace as space
    join pg_class as ledger on ledger.relnamespace = space.oid and ledger.relname = 'sync_run'
    where space.nspname = %(schema)s
)

select
    case relation.relkind when 'v' then 'view' else 'sequence' end as kind,
    cast(relation.relname as text) as name,
    cast(null as text) as arguments,
    -- A view of any other kind shows each caller what its owner may read.
    relation.relkind = 'v'
    and coalesce(
        (
            select cast(option.option_value as boolean)
            from pg_options_to_table(relation.reloptions) as option
            where option.option_name = 'security_invoker'
        ),
        false
    ) as with_callers_rights
from ours
join pg_class as relation
    on relation.relnamespace = ours.space
    and relation.relowner = ours.owner
    and relation.relkind in ('v', 'S')
union all
select
    'function',
    cast(routine.proname as text),
    pg_get_function_identity_arguments(routine.oid),
    not routine.prosecdef
from ours
join pg_proc as routine
    on routine.pronamespace = ours.space
    and routine.proowner = ours.owner
    and routine.prokind = 'f'
where
    not exists (
        select 1
        from pg_depend as extension
        where
            extension.classid = cast('pg_proc' as regclass)
            and extension.objid = routine.oid
            and extension.deptype = 'e'
    )
order by kind, name, arguments
