-- What changed in the last published run?
select
    token.change_kind,
    case
        when before.version is not null
            then coalesce(
                before_name.name, 'UNKNOWN_' || before.status, 'UNKNOWN'
            )
    end as was,
    coalesce(
        after_name.name, 'UNKNOWN_' || token.status, 'UNKNOWN'
    ) as became,
    count(*) as tokens
from upload_token_history as token
left join upload_token_history as before
    on
        token.partner_id = before.partner_id
        and token.token_id = before.token_id
        and token.version - 1 = before.version
left join upload_token_status as before_name
    on before.status = before_name.code
left join upload_token_status as after_name
    on token.status = after_name.code
where
    token.run_id = (
        select run_id from sync_run
        where published_at is not null
        order by published_at desc
        limit 1
    )
group by 1, 2, 3
order by 1, 4 desc, 2, 3
