-- A token is unobserved only by a published run that covered it and did not see it.
with noted as (
    select
        noted.partner_id,
        noted.token_id,
        noted.run_id,
        noted.reason,
        run.partner_id as run_partner_id,
        run.status as run_status,
        run.published_at,
        run.rejected_pruned,
        run.coverage,
        run.open_coverage
    from unobserved_token as noted
    left join sync_run as run on run.run_id = noted.run_id
),

judged as (
    select
        noted.partner_id,
        noted.token_id,
        noted.run_id,
        noted.reason,
        case
            when noted.run_status is distinct from 'succeeded'
                or noted.run_partner_id <> noted.partner_id
                then 'no published run of the account'
            when not exists (
                select 1 from upload_token as latest
                where latest.partner_id = noted.partner_id and latest.token_id = noted.token_id
            )
                then 'unknown token'
            when exists (
                select 1 from upload_token_history as written
                where
                    written.partner_id = noted.partner_id
                    and written.token_id = noted.token_id
                    and written.run_id = noted.run_id
            )
                then 'the run published a version of it'
            when known.version is null and exists (
                -- otherwise its earlier versions are pruned
                select 1 from upload_token_history as first_version
                where
                    first_version.partner_id = noted.partner_id
                    and first_version.token_id = noted.token_id
                    and first_version.version = 1
            )
                then 'not known when the run published'
            when not known.is_listed
                then 'known as absent when the run published'
            when noted.reason = 'pending' and not (
                noted.coverage @> known.second
                or (known.status in (0, 1, 2) and noted.open_coverage @> known.second)
            )
                then 'pending where the run read nothing'
            when noted.reason = 'rejected'
                and noted.rejected_pruned = 0
                and not exists (
                    select 1 from rejected_row as rejected
                    where
                        rejected.run_id = noted.run_id
                        and rejected.token_id = noted.token_id
                        and rejected.reason <> 'duplicate_id'
                )
                then 'no rejected row of it'
        end as breach
    from noted
    left join lateral (
        select
            version.version,
            version.is_listed,
            version.status,
            cast(floor(extract(epoch from version.created_at)) as bigint) as second
        from upload_token_history as version
        where
            version.partner_id = noted.partner_id
            and version.token_id = noted.token_id
            and version.valid_from < noted.published_at
            and (version.valid_to is null or version.valid_to > noted.published_at)
    ) as known on true
)

select
    partner_id,
    token_id,
    run_id,
    reason,
    breach
from judged
where breach is not null
