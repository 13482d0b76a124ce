-- What a role is, owns or can become that no grant and no revoke takes from it; the worst first.
with powers as (
    select
        oid,
        cast(rolname as text) as name,
        rolsuper,
        rolcreaterole,
        rolname = cast(%(role)s as name) as itself
    from pg_roles
    where pg_has_role(cast(%(role)s as name), oid, 'MEMBER')
),

owned as (
    select
        datdba as owner,
        'database ' || datname as what,
        2 as place
    from pg_database
    where datname = current_database()
    union all
    select
        nspowner,
        'schema ' || nspname,
        3
    from pg_namespace
    where nspname = %(schema)s
    union all
    select
        found.relowner,
        'table ' || space.nspname || '.' || found.relname,
        4
    from pg_class as found
    join pg_namespace as space on space.oid = found.relnamespace
    where space.nspname = %(schema)s and found.relname = any(cast(%(tables)s as text[]))
),

found as (
    select
        0 as place,
        name,
        itself,
        'is a superuser' as power
    from powers
    where rolsuper
    union all
    select
        1,
        name,
        itself,
        'may read or write files of the server, or run programs there'
    from powers
    where name in ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files')
    union all
    select
        owned.place,
        powers.name,
        powers.itself,
        'owns ' || owned.what
    from powers
    join owned on owned.owner = powers.oid
    union all
    select
        5,
        name,
        itself,
        'may make itself a member of any role (CREATEROLE before PostgreSQL 16)'
    from powers
    where rolcreaterole and cast(current_setting('server_version_num') as integer) < 160000
)

select
    name,
    itself,
    power
from found
order by itself desc, place, power, name
