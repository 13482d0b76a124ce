-- The columns of a view or table of the schema, in their order, with the names of their types.
select
    attribute.attname as name,
    type.typname as type
from pg_class as relation
inner join pg_attribute as attribute on attribute.attrelid = relation.oid
inner join pg_type as type on type.oid = attribute.atttypid
where
    relation.relnamespace = cast(current_schema() as regnamespace)
    and relation.relname = %(relation)s
    and attribute.attnum > 0
    and not attribute.attisdropped
order by attribute.attnum
