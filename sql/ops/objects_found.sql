-- What a schema has of the kinds of objects that a migration makes; without what is not valid.
with relation as (
    select
        oid,
        relname,
        relkind,
        relpersistence,
        relreplident,
        reloptions
    from pg_class
    where
        relnamespace = to_regnamespace(quote_ident(%(schema)s))
        and relkind in ('r', 'p', 'v')
),

attribute as (
    select
        relation.relname || '.' || attname as name,
        relation.oid,
        relation.relkind,
        attnum,
        format_type(atttypid, atttypmod) as type,
        attnotnull,
        attstorage,
        atthasdef or attidentity <> '' as has_default
    from relation
    join pg_attribute on attrelid = relation.oid and attnum > 0 and not attisdropped
)

select
    case relkind when 'v' then 'view' else 'table' end as kind,
    cast(relname as text) as name,
    cast(null as text) as detail
from relation
union all
select
    case relkind when 'v' then 'view column' else 'column' end,
    name,
    case when relkind <> 'v' then type end
from attribute
union all
select 'not null', name, null from attribute where attnotnull
union all
select 'default', name, null from attribute where has_default and relkind <> 'v'
union all
select
    'storage',
    name,
    case attstorage
        when 'p' then 'plain' when 'e' then 'external' when 'm' then 'main' else 'extended'
    end
from attribute
where relkind <> 'v'
union all
select
    'persistence',
    relname,
    case relpersistence when 'u' then 'unlogged' else 'logged' end
from relation
where relkind <> 'v'
union all
select
    'replica identity',
    relname,
    case relreplident
        when 'f' then 'full' when 'n' then 'nothing' when 'i' then 'using index' else 'default'
    end
from relation
where relkind <> 'v'
union all
select 'fillfactor', relname, option_value
from relation
cross join lateral pg_options_to_table(reloptions)
where option_name = 'fillfactor'
union all
select 'constraint', relname || '.' || conname, null
from pg_constraint
join relation on relation.oid = conrelid
where convalidated
union all
select 'index', relation.relname || '.' || index_relation.relname, null
from pg_index
join relation on relation.oid = indrelid
join pg_class as index_relation on index_relation.oid = indexrelid
where indisvalid
union all
select 'function', proname, null
from pg_proc
where pronamespace = to_regnamespace(quote_ident(%(schema)s))
union all
select 'comment', relname, obj_description(oid, 'pg_class') from relation
union all
select 'comment', name, col_description(oid, attnum) from attribute
union all
select 'comment', proname, obj_description(oid, 'pg_proc')
from pg_proc
where pronamespace = to_regnamespace(quote_ident(%(schema)s))
