-- What changed between two runs?
-- Variables: partner_id, run_before, run_id
with run as (
    select
        max(published_at) filter (where run_id = :run_before) as since,
        max(published_at) filter (where run_id = :run_id) as until
    from sync_run
    where partner_id = :partner_id and run_id in (:run_before, :run_id)
)

select
    case
        when not before.is_listed then 'NOT_LISTED'
        when before.version is not null
            then coalesce(
                before_name.name, 'UNKNOWN_' || before.status, 'UNKNOWN'
            )
        -- What was known then has been deleted (prune).
        when
            after.version > 1
            and after.created_at <= run.since
            and pruned.horizon > run.since
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
from run
inner join upload_token_history as after
    on
        after.partner_id = :partner_id
        and after.valid_from > run.since
        and after.valid_from <= run.until
        and (after.valid_to > run.until or after.is_current)
left join lateral (
    select * from upload_token_superseded as known
    where
        known.partner_id = after.partner_id
        and known.token_id = after.token_id
        and known.valid_from <= run.since
        and known.valid_to > run.since
    -- There is one at most.  Said, so that it is looked up by key: Postgres
    -- expects a ninth of all tokens, for which reading all versions would pay.
    limit 1
) as before on true
left join upload_token_horizon as pruned on after.partner_id = pruned.partner_id
left join upload_token_status as before_name on before.status = before_name.code
left join upload_token_status as after_name on after.status = after_name.code
where
    before.is_listed is distinct from after.is_listed
    or before.status is distinct from after.status
group by 1, 2
order by 3 desc, 1, 2
