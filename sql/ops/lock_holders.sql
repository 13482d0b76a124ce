-- Other sessions that hold locks on the program's tables or its advisory locks, the strongest first.
select
    lock.pid,
    session.application_name,
    session.usename as role,
    lock.mode,
    coalesce(relation.space || '.' || relation.relname, 'an advisory lock') as object,
    -- NULL for sessions that this role may not look at.
    extract(epoch from clock_timestamp() - session.xact_start) as seconds,
    strength.rank
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
        oid,
        relname,
        cast(relnamespace as regnamespace) as space
    from pg_class
    where
        relkind in ('r', 'p')
        and relnamespace in (select relnamespace from pg_class where relname = 'sync_run')
) as relation on relation.oid = lock.relation
where
    lock.granted
    and lock.pid <> pg_backend_pid()
    and lock.database = (select oid from pg_database where datname = current_database())
    and (relation.oid is not null or (lock.locktype = 'advisory' and %(advisory)s))
    and strength.rank <= %(weakest)s
order by relation.oid is null desc, strength.rank, session.xact_start, lock.pid
limit 1
