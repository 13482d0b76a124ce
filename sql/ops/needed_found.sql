-- What a run cannot do without: columns of the given tables, and unique indexes that are valid.
select relation.relname || '.' || attname as name
from pg_class as relation
join pg_attribute on attrelid = relation.oid and attnum > 0 and not attisdropped
where
    relation.relnamespace = to_regnamespace(quote_ident(%(schema)s))
    and relation.relname = any(cast(%(tables)s as text[]))
union all
select relation.relname || '.' || guard.relname
from pg_class as relation
join pg_index on indrelid = relation.oid and indisunique and indisvalid
join pg_class as guard on guard.oid = indexrelid
where
    relation.relnamespace = to_regnamespace(quote_ident(%(schema)s))
    and relation.relname = any(cast(%(tables)s as text[]))
