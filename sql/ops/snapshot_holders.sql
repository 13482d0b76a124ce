-- Other sessions whose transactions an index that is built concurrently waits for, the oldest first.
select
    session.pid,
    session.application_name,
    session.usename as role,
    coalesce(lock.mode, 'snapshot') as mode,
    case
        when lock.mode is null then 'a snapshot'
        else cast(%(schema)s as text) || '.' || cast(%(table)s as text)
    end as object,
    -- NULL for sessions that this role may not look at, as is what they do.
    extract(epoch from clock_timestamp() - session.xact_start) as seconds,
    case
        when session.backend_type <> 'client backend' then session.backend_type
        when session.state like 'idle%%' then session.state
        -- No more than the first word: the rest may hold personal data.
        else upper(substring(session.query from '^\s*([A-Za-z]+)'))
    end as doing,
    1 as rank
from pg_stat_activity as session
left join pg_locks as lock
    on lock.pid = session.pid
    and lock.granted
    and lock.relation = (
        select oid from pg_class
        where relname = %(table)s and relnamespace = to_regnamespace(quote_ident(%(schema)s))
    )
    -- Readers are waited for as holders of a snapshot only.
    and lock.mode not in ('AccessShareLock', 'RowShareLock')
where
    session.datname = current_database()
    and session.pid <> pg_backend_pid()
    and (lock.mode is not null or session.backend_xmin is not null)
order by age(session.backend_xmin) desc nulls last, session.xact_start, session.pid
limit 1
