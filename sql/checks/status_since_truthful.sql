-- Since when a version has its status is what its change, or the version before, tells.
with version as (
    select
        latest.partner_id,
        latest.token_id,
        latest.version,
        latest.created_at,
        latest.status_version,
        latest.status_happened_at,
        latest.status_happened_after,
        latest.status_happened_before
    from upload_token as latest
    union all
    select
        earlier.partner_id,
        earlier.token_id,
        earlier.version,
        earlier.created_at,
        earlier.status_version,
        earlier.status_happened_at,
        earlier.status_happened_after,
        earlier.status_happened_before
    from upload_token_superseded as earlier
),

told as (
    select
        earlier.partner_id,
        earlier.token_id,
        earlier.version,
        case when earlier.version = 1 then 1 else earlier.status_version end as status_version,
        case
            when earlier.version = 1 then earlier.first_happened_at
            else earlier.status_happened_at
        end as status_happened_at,
        case
            when earlier.version = 1 then least(earlier.created_at, earlier.observed_at)
            else earlier.status_happened_after
        end as status_happened_after,
        case
            when earlier.version = 1 then earlier.observed_at
            else earlier.status_happened_before
        end as status_happened_before
    from upload_token_superseded as earlier
)

select
    version.partner_id,
    version.token_id,
    version.version,
    version.status_version,
    version.status_happened_at
from version
left join upload_token_status_moment_log as moment
    on
        moment.partner_id = version.partner_id
        and moment.token_id = version.token_id
        and moment.version = version.version
left join told as before
    on
        before.partner_id = version.partner_id
        and before.token_id = version.token_id
        and before.version = version.version - 1
where
    case
        when moment.version is not null
            then
                (
                    version.status_version,
                    version.status_happened_at,
                    version.status_happened_after,
                    version.status_happened_before,
                    version.created_at
                ) is distinct from (
                    moment.version,
                    moment.happened_at,
                    moment.happened_after,
                    moment.happened_before,
                    moment.created_at
                )
                or (
                    -- Not what a version told that has been pruned since.
                    before.status_version is not null
                    and (
                        before.status_version,
                        before.status_happened_at,
                        before.status_happened_after,
                        before.status_happened_before
                    ) is distinct from (
                        moment.from_version,
                        moment.from_happened_at,
                        moment.from_happened_after,
                        moment.from_happened_before
                    )
                )
        when version.version = 1 or before.version is not null
            then (
                version.status_version,
                version.status_happened_at,
                version.status_happened_after,
                version.status_happened_before
            ) is distinct from (
                before.status_version,
                before.status_happened_at,
                before.status_happened_after,
                before.status_happened_before
            )
        else false
    end
