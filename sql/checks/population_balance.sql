-- A run begins with the listed tokens that earlier runs left; the tables hold those left now.
with published as (
    select
        partner_id,
        run_id,
        listed_before,
        listed_before + inserted + relisted - absent as listed_after,
        row_number() over (partition by partner_id order by published_at desc) as recency,
        lag(listed_before + inserted + relisted - absent, 1, cast(0 as bigint)) over (
            partition by partner_id order by published_at
        ) as expected
    from sync_run
    where status = 'succeeded'
),

listed as (
    select
        partner_id,
        count(*) as tokens
    from upload_token
    where is_listed
    group by partner_id
)

select
    partner_id,
    run_id,
    expected,
    listed_before as found
from published
where listed_before <> expected
union all
select
    latest.partner_id,
    latest.run_id,
    latest.listed_after as expected,
    coalesce(listed.tokens, 0) as found
from published as latest
left join listed on listed.partner_id = latest.partner_id
where latest.recency = 1 and latest.listed_after <> coalesce(listed.tokens, 0)
