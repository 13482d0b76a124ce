-- Tells versions since when they have their status or presence, as far as that is known.
-- :versions is upload_token or upload_token_superseded.
update :versions as filled
set
    status_version = told.version,
    status_happened_at = told.happened_at,
    status_happened_after = told.happened_after,
    status_happened_before = told.happened_before
from :versions as version
cross join lateral (
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
            logged.partner_id = version.partner_id
            and logged.token_id = version.token_id
            and logged.version <= version.version
        union all
        select
            sighted.version,
            sighted.first_happened_at as happened_at,
            least(sighted.created_at, sighted.observed_at) as happened_after,
            sighted.observed_at as happened_before
        from upload_token_superseded as sighted
        where
            sighted.partner_id = version.partner_id
            and sighted.token_id = version.token_id
            and sighted.version = 1
    ) as moment
    order by moment.version desc
    limit 1
) as told
where
    version.version > 1
    and filled.partner_id = version.partner_id
    and filled.token_id = version.token_id
    and filled.version = version.version
    and (
        told.version,
        told.happened_at,
        told.happened_after,
        told.happened_before
    ) is distinct from (
        filled.status_version,
        filled.status_happened_at,
        filled.status_happened_after,
        filled.status_happened_before
    )
