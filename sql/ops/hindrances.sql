-- What on the program's tables can change or forbid the rows of a run, and is not the program's.
with ours as (
    select
        oid,
        relname,
        relreplident
    from pg_class
    where
        relnamespace = to_regnamespace(quote_ident(%(schema)s))
        and relname = any(%(tables)s)
        and relkind in ('r', 'p')
),

-- The columns by which an UPDATE or a DELETE is passed on.
identity as (
    select
        ours.oid,
        array_agg(cast(attribute.attname as text)) as columns
    from ours
    join pg_index as index_of
        on index_of.indrelid = ours.oid
        and case ours.relreplident
            when 'd' then index_of.indisprimary
            when 'i' then index_of.indisreplident
            else false
        end
    join pg_attribute as attribute
        on attribute.attrelid = ours.oid and attribute.attnum = any(index_of.indkey)
    group by ours.oid
),

published as (
    select
        ours.relname,
        published.pubname,
        ours.relreplident,
        identity.columns,
        -- Since PostgreSQL 15.
        to_jsonb(published) -> 'attnames' as names,
        to_jsonb(published) ->> 'rowfilter' as filter
    from ours
    join pg_publication_tables as published
        on published.schemaname = %(schema)s and published.tablename = ours.relname
    join pg_publication as publication on publication.pubname = published.pubname
    left join identity on identity.oid = ours.oid
    where publication.pubupdate or publication.pubdelete
)

select
    'publication' as kind,
    relname as on_table,
    pubname as name
from published
where
    (columns is null and relreplident <> 'f')
    or filter is not null
    or not names @> to_jsonb(columns)
union all
select
    'trigger',
    ours.relname,
    tgname
from pg_trigger
join ours on ours.oid = tgrelid
where not tgisinternal and tgenabled <> 'D'
union all
select
    'rule',
    ours.relname,
    rulename
from pg_rewrite
join ours on ours.oid = ev_class
order by kind, on_table, name
