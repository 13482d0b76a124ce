-- What changed last night, that is since the complete run before?
-- Variables: partner_id
with night as (
    select
        max(run.published_at) as until,
        case
            when count(*) = 2 then min(run.published_at) else '-infinity'
        end as since
    from (
        select published_at from sync_run
        where
            partner_id = :partner_id
            and published_at is not null
            and sync_run_is_complete(coverage, holes)
        order by published_at desc
        limit 2
    ) as run
)

select
    night.since,
    case
        when not before.is_listed then 'NOT_LISTED'
        when before.version is not null
            then coalesce(
                before_name.name, 'UNKNOWN_' || before.status, 'UNKNOWN'
            )
        -- What was known then has been deleted (prune).
        when
            after.version > 1
            and after.created_at <= night.since
            and pruned.horizon > night.since
            -- Otherwise it was first seen after that.
            and not exists (
                select 1 from upload_token_superseded as sighting
                where
                    sighting.partner_id = after.partner_id
                    and sighting.token_id = after.token_id
                    and sighting.version = 1
            )
            then '(pruned)'
        else '(none)'
    end as was,
    case
        when not after.is_listed then 'NOT_LISTED'
        else coalesce(after_name.name, 'UNKNOWN_' || after.status, 'UNKNOWN')
    end as became,
    count(*) as tokens,
    min(after.token_id) as for_example
from night
inner join upload_token_history as after
    on
        after.partner_id = :partner_id
        and after.valid_from > night.since
        and after.valid_from <= night.until
        and (after.valid_to > night.until or after.is_current)
left join lateral (
    select * from upload_token_superseded as known
    where
        known.partner_id = after.partner_id
        and known.token_id = after.token_id
        and known.valid_from <= night.since
        and known.valid_to > night.since
    -- There is one at most.  Said, so that it is looked up by key: Postgres
    -- expects a ninth of all tokens, for which reading all versions would pay.
    limit 1
) as before on true
left join upload_token_horizon as pruned on after.partner_id = pruned.partner_id
left join upload_token_status as before_name on before.status = before_name.code
left join upload_token_status as after_name on after.status = after_name.code
group by 1, 2, 3
order by 4 desc, 2, 3
