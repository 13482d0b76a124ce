-- Why no grant can restrict a role: what it, or a role that it is a member of, is or owns.
with found (place, holder, power) as (
    select 0, oid, 'is a superuser'
    from pg_roles
    where rolsuper
    union all
    select 1, oid, 'may read or write files of the server, or run programs there'
    from pg_roles
    where rolname in ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files')
    union all
    select 2, datdba, 'owns database ' || datname
    from pg_database
    where datname = current_database()
    union all
    select 3, nspowner, 'owns schema ' || nspname
    from pg_namespace
    where nspname = %(schema)s
    union all
    select 4, relation.relowner, 'owns table ' || space.nspname || '.' || relation.relname
    from pg_class as relation
    join pg_namespace as space on space.oid = relation.relnamespace
    where space.nspname = %(schema)s and relation.relname = any(cast(%(tables)s as text[]))
    union all
    select 5, oid, 'may make itself a member of any role (CREATEROLE before PostgreSQL 16)'
    from pg_roles
    where rolcreaterole and cast(current_setting('server_version_num') as integer) < 160000
)

select cast(pg_get_userbyid(holder) as text) as name, power
from found
where pg_has_role(cast(%(role)s as name), holder, 'MEMBER')
-- The role itself first, then the greatest power.
order by pg_get_userbyid(holder) = %(role)s desc, place, power, name
limit 1
