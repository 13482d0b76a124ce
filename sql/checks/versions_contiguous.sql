-- Versions of a token are 1, 2, ... without gaps: the latest one in upload_token.
select
    coalesce(latest.partner_id, earlier.partner_id) as partner_id,
    coalesce(latest.token_id, earlier.token_id) as token_id,
    latest.version as latest_version,
    earlier.versions as superseded_versions,
    earlier.newest as newest_superseded_version
from upload_token as latest
full join (
    select
        partner_id,
        token_id,
        count(*) as versions,
        max(version) as newest
    from upload_token_superseded
    group by partner_id, token_id
) as earlier
    on earlier.partner_id = latest.partner_id and earlier.token_id = latest.token_id
where
    coalesce(earlier.versions, 0) <> coalesce(latest.version, 0) - 1
    or coalesce(earlier.newest, 0) <> coalesce(latest.version, 0) - 1
