-- Writes the log of status moments of a warehouse whose versions were published without it.
insert into upload_token_status_moment_log (
    partner_id, token_id, version, from_status, to_status, from_status_code, to_status_code,
    change_kind, happened_at, happened_after, happened_before, from_happened_at, valid_from, run_id,
    from_version, from_happened_after, from_happened_before, created_at
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
    moment.run_id,
    moment.from_version,
    moment.from_happened_after,
    moment.from_happened_before,
    version.created_at
from (
    select
        every.*,
        lag(every.version) over one_token as from_version,
        lag(every.happened_at) over one_token as from_happened_at,
        lag(every.happened_after) over one_token as from_happened_after,
        lag(every.happened_before) over one_token as from_happened_before
    from upload_token_status_moment as every
    window one_token as (
        partition by every.partner_id, every.token_id
        order by every.version
    )
) as moment
inner join upload_token_history as version
    on
        version.partner_id = moment.partner_id
        and version.token_id = moment.token_id
        and version.version = moment.version
where moment.version > 1
order by moment.valid_from, moment.partner_id, moment.token_id
on conflict do nothing
