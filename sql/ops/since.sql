-- Since when the version of the row "filled" has its status or presence, as far as that is known.
select
    moment.version,
    moment.happened_at,
    moment.happened_after,
    moment.happened_before
from (
    select
        logged.version,
        logged.happened_at,
        logged.happened_after,
        logged.happened_before
    from upload_token_status_moment_log as logged
    where
        logged.partner_id = filled.partner_id
        and logged.token_id = filled.token_id
        and logged.version <= filled.version
    union all
    select
        sighted.version,
        sighted.first_happened_at as happened_at,
        least(sighted.created_at, sighted.observed_at) as happened_after,
        sighted.observed_at as happened_before
    from upload_token_superseded as sighted
    where
        sighted.partner_id = filled.partner_id
        and sighted.token_id = filled.token_id
        and sighted.version = 1
) as moment
where filled.version > 1
order by moment.version desc
limit 1
