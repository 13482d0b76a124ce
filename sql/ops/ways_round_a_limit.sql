-- How a role reads rows of other accounts than the given ones: itself, or as a role that it can become.
with account_table as (
    select
        oid,
        relname,
        relowner,
        relrowsecurity
    from pg_class
    where
        relnamespace = to_regnamespace(quote_ident(%(schema)s))
        and relname = any(cast(%(tables)s as text[]))
),

limits as (
    select
        policy.polrelid,
        policy.polroles[1] as role
    from pg_policy as policy
    where
        not policy.polpermissive
        and policy.polcmd = '*'
        and cardinality(policy.polroles) = 1
        and policy.polroles[1] <> 0
        and starts_with(cast(policy.polname as text), %(prefix)s)
        -- As kaltura-etl grant writes it.
        and cast(
            string_to_array(
                substring(
                    pg_get_expr(policy.polqual, policy.polrelid) from '''\{([0-9,]+)\}'''
                ),
                ','
            ) as integer[]
        ) <@ cast(%(accounts)s as integer[])
)

select
    cast(reader.rolname as text) as name,
    case
        when reader.rolsuper or reader.rolbypassrls then 'is exempt from row-level security'
        when pg_has_role(reader.oid, account_table.relowner, 'USAGE')
            then 'owns ' || account_table.relname
        else 'reads other accounts in ' || account_table.relname
    end as power
from pg_roles as reader
cross join account_table
where
    pg_has_role(cast(%(role)s as name), reader.oid, 'MEMBER')
    and has_any_column_privilege(reader.oid, account_table.oid, 'SELECT')
    and (
        reader.rolsuper
        or reader.rolbypassrls
        or pg_has_role(reader.oid, account_table.relowner, 'USAGE')
        or not account_table.relrowsecurity
        or not exists (
            select from limits
            where
                limits.polrelid = account_table.oid
                and pg_has_role(reader.oid, limits.role, 'USAGE')
        )
    )
order by reader.rolname = %(role)s desc, name, account_table.relname
limit 1
