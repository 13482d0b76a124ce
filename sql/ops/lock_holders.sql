-- The other session with the strongest lock on the program's tables, or with its advisory lock.
select
    lock.pid,
    session.application_name,
    session.usename as role,
    lock.mode,
    coalesce(relation.space || '.' || relation.relname, 'an advisory lock') as object,
    -- NULL for sessions that this role may not look at, as is what they do.
    extract(epoch from clock_timestamp() - session.xact_start) as seconds,
    case
        when session.backend_type <> 'client backend' then session.backend_type
        when session.state like 'idle%%' then session.state
        -- No more than the first word: the rest may hold personal data.
        else upper(substring(session.query from '^\s*([A-Za-z]+)'))
    end as doing,
    case when relation.oid is null then 0 else strength.rank end as rank
from pg_locks as lock
join (
    values
        ('AccessExclusiveLock', 1),
        ('ExclusiveLock', 2),
        ('ShareRowExclusiveLock', 3),
        ('ShareLock', 4),
        -- With these, only rows are locked.
        ('RowExclusiveLock', 5),
        ('RowShareLock', 6),
        -- And these are in the way of a migration only.
        ('ShareUpdateExclusiveLock', 7),
        ('AccessShareLock', 8)
) as strength (mode, rank) on strength.mode = lock.mode
left join pg_stat_activity as session on session.pid = lock.pid
left join (
    select
        found.oid,
        found.relname,
        space.nspname as space
    from pg_class as found
    join pg_namespace as space on space.oid = found.relnamespace
    where
        found.relkind in ('r', 'p')
        and case
            -- Another schema of the program is in nobody's way here.
            when cast(%(schema)s as text) is not null then space.nspname = %(schema)s
            else space.oid in (select relnamespace from pg_class where relname = 'sync_run')
        end
) as relation on relation.oid = lock.relation
where
    lock.granted
    and lock.pid <> pg_backend_pid()
    -- The node whose client it works for names that one's session.
    and coalesce(session.application_name, '') not like 'citus_internal%%'
    and lock.database = (select oid from pg_database where datname = current_database())
    and (
        relation.oid is not null
        or (
            lock.locktype = 'advisory'
            and lock.objsubid = 1
            -- The two halves of the key.
            and (cast(lock.classid as bigint) << 32) | cast(lock.objid as bigint)
            = hashtextextended(cast(%(advisory)s as text), 0)
        )
    )
    and strength.rank <= %(weakest)s
order by rank, session.xact_start, lock.pid
limit 1
