-- Writes the log of status moments of a warehouse whose versions were published without it.
insert into upload_token_status_moment_log (
    partner_id, token_id, version, from_status, to_status, from_status_code, to_status_code,
    change_kind, happened_at, happened_after, happened_before, from_happened_at, valid_from, run_id
)
select
    moment.partner_id,
    moment.token_id,
    moment.version,
    moment.from_status,
    moment.to_status,
    moment.from_status_code,
    moment.to_status_code,
    moment.change_kind,
    moment.happened_at,
    moment.happened_after,
    moment.happened_before,
    moment.from_happened_at,
    moment.valid_from,
    moment.run_id
from (
    select
        every.*,
        lag(every.happened_at) over (
            partition by every.partner_id, every.token_id
            order by every.version
        ) as from_happened_at
    from upload_token_status_moment as every
) as moment
where moment.version > 1
order by moment.valid_from, moment.partner_id, moment.token_id
on conflict do nothing
