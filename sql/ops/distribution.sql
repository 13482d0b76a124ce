-- How Citus has distributed the tables of a schema, and which of them keep a local copy on disk.
-- Parameters: schema, tables.  For a database with Citus 12 or newer.
select
    class.relname as name,
    case
        when part.logicalrelid is null then 'plain'
        when sharded.schemaid is not null then 'sharded'
        when part.partmethod <> 'n' then 'distributed by a column'
        when part.repmodel = 't' then 'a reference table'
        when part.colocationid = 0 then 'plain'
        else 'distributed on its own'
    end as kind,
    part.logicalrelid is not null
    and (
        pg_relation_size(class.oid) > 0
        or (class.reltoastrelid <> 0 and pg_relation_size(class.reltoastrelid) > 0)
    ) as has_local_copy
from pg_class as class
inner join pg_namespace as space on space.oid = class.relnamespace
left join pg_dist_partition as part on part.logicalrelid = class.oid
left join pg_dist_schema as sharded
    on sharded.schemaid = space.oid and sharded.colocationid = part.colocationid
where
    space.nspname = %(schema)s
    and class.relkind in ('r', 'p')
    and class.relname = any(%(tables)s)
order by class.relname
