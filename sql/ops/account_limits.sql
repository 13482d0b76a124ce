-- The policies on the given tables, and which roles are limited to which accounts by them.
select
    cast(relation.relname as text) as on_table,
    relation.relrowsecurity as is_enabled,
    cast(policy.polname as text) as name,
    not policy.polpermissive as is_restrictive,
    -- A limit is the policy of one role; 0 stands for PUBLIC.
    case
        when cardinality(policy.polroles) = 1 and policy.polroles[1] <> 0
            then cast(pg_get_userbyid(policy.polroles[1]) as text)
    end as of_role,
    -- As kaltura-etl grant writes it; NULL otherwise.
    cast(
        string_to_array(
            substring(pg_get_expr(policy.polqual, policy.polrelid) from '''\{([0-9,]+)\}'''), ','
        ) as integer[]
    ) as accounts
from pg_class as relation
left join pg_policy as policy on policy.polrelid = relation.oid
where
    relation.relnamespace = to_regnamespace(quote_ident(%(schema)s))
    and relation.relname = any(cast(%(tables)s as text[]))
order by on_table, name
