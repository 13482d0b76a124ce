-- Tells each status moment of the change before, as far as that was not pruned.
update upload_token_status_moment_log as moment
set
    from_version = told.from_version,
    from_happened_at = told.from_happened_at,
    from_happened_after = told.from_happened_after,
    from_happened_before = told.from_happened_before
from (
    select
        every.partner_id,
        every.token_id,
        every.version,
        lag(every.version) over one_token as from_version,
        lag(every.happened_at) over one_token as from_happened_at,
        lag(every.happened_after) over one_token as from_happened_after,
        lag(every.happened_before) over one_token as from_happened_before
    from (
        select
            logged.partner_id,
            logged.token_id,
            logged.version,
            logged.happened_at,
            logged.happened_after,
            logged.happened_before
        from upload_token_status_moment_log as logged
        union all
        select
            earlier.partner_id,
            earlier.token_id,
            earlier.version,
            earlier.first_happened_at as happened_at,
            least(earlier.created_at, earlier.observed_at) as happened_after,
            earlier.observed_at as happened_before
        from upload_token_superseded as earlier
        where earlier.version = 1
    ) as every
    window one_token as (
        partition by every.partner_id, every.token_id
        order by every.version
    )
) as told
where
    told.partner_id = moment.partner_id
    and told.token_id = moment.token_id
    and told.version = moment.version
    and told.from_version is not null
    and (
        told.from_version,
        told.from_happened_at,
        told.from_happened_after,
        told.from_happened_before
    ) is distinct from (
        moment.from_version,
        moment.from_happened_at,
        moment.from_happened_after,
        moment.from_happened_before
    )
