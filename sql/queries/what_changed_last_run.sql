-- What changed with the last run that published: new, moved on, gone and back again, by status.
select
    token.change_kind,
    coalesce(status_before.name, 'UNKNOWN_' || cast(before.status as text)) as status_before,
    coalesce(status_after.name, 'UNKNOWN_' || cast(token.status as text)) as status_after,
    count(*) as tokens
from upload_token_history as token
left join upload_token_history as before
    on
        token.partner_id = before.partner_id
        and token.token_id = before.token_id
        and token.version - 1 = before.version
left join upload_token_status as status_before on before.status = status_before.code
left join upload_token_status as status_after on token.status = status_after.code
where token.run_id = (select max(run_id) from sync_run where published_at is not null)
group by 1, 2, 3
order by 1, 4 desc, 2, 3
