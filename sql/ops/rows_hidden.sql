-- Tables of the schema of which row-level security hides rows from the connection's role.
select cast(relation.relname as text) as on_table
from pg_class as relation
cross join lateral (
    select
        coalesce(bool_or(policy.polpermissive and policy.polcmd = '*' and lets_all), false)
        as shows_all,
        coalesce(bool_or(not policy.polpermissive), false) as may_hide
    from pg_policy as policy
    cross join lateral (
        select
            pg_get_expr(policy.polqual, policy.polrelid) = 'true'
            and coalesce(pg_get_expr(policy.polwithcheck, policy.polrelid), 'true') = 'true'
            as lets_all
    ) as words
    where
        policy.polrelid = relation.oid
        and exists (
            select from unnest(policy.polroles) as of_role (oid)
            where case when oid = 0 then true else pg_has_role(oid, 'USAGE') end
        )
) as policies
where
    relation.relnamespace = to_regnamespace(quote_ident(%(schema)s))
    and relation.relkind in ('r', 'p')
    and row_security_active(relation.oid)
    and (may_hide or not shows_all)
order by on_table
