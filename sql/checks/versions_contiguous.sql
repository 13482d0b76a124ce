-- Versions of a token are 1, 2, ... without gaps, the latest in upload_token (older ones pruned).
select
    coalesce(latest.partner_id, earlier.partner_id) as partner_id,
    coalesce(latest.token_id, earlier.token_id) as token_id,
    latest.version as latest_version,
    earlier.versions as superseded_versions,
    earlier.oldest as oldest_superseded_version,
    earlier.newest as newest_superseded_version,
    pruned.horizon
from upload_token as latest
full join (
    select
        partner_id,
        token_id,
        count(*) as versions,
        min(version) as oldest,
        max(version) as newest,
        min(valid_from) as valid_from
    from upload_token_superseded
    group by partner_id, token_id
) as earlier
    on earlier.partner_id = latest.partner_id and earlier.token_id = latest.token_id
left join upload_token_horizon as pruned
    on pruned.partner_id = coalesce(latest.partner_id, earlier.partner_id)
where
    latest.version is null
    or coalesce(earlier.newest + 1, latest.version) <> latest.version
    or coalesce(earlier.versions, 0) <> latest.version - coalesce(earlier.oldest, latest.version)
    or (
        coalesce(earlier.oldest, latest.version) > 1
        -- The version before the oldest remaining one was valid until this one began.
        and (coalesce(earlier.valid_from, latest.valid_from) < pruned.horizon) is not true
    )
