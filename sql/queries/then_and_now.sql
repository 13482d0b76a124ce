-- What was known at a given time, and what is known about it now?
-- Variables: partner_id, at
select
    case
        when not known.is_listed then 'NOT_LISTED'
        when known.token_id is not null
            then coalesce(known_name.name, 'UNKNOWN_' || known.status, 'UNKNOWN')
        -- What was known then has been deleted (prune).
        when
            happened.version > 1
            and pruned.horizon > cast(:'at' as timestamptz)
            -- Otherwise it was first seen after that.
            and not exists (
                select 1 from upload_token_superseded as sighting
                where
                    sighting.partner_id = happened.partner_id
                    and sighting.token_id = happened.token_id
                    and sighting.version = 1
            )
            then 'pruned'
        else 'not seen yet'
    end as known_then,
    case
        when not happened.is_listed then 'NOT_LISTED'
        else coalesce(happened_name.name, 'UNKNOWN_' || happened.status, 'UNKNOWN')
    end as known_now,
    count(*) as tokens,
    min(happened.token_id) as for_example
from upload_token_happened_by(cast(:'at' as timestamptz)) as happened
left join upload_token_as_of(cast(:'at' as timestamptz)) as known
    on happened.partner_id = known.partner_id and happened.token_id = known.token_id
left join upload_token_horizon as pruned on happened.partner_id = pruned.partner_id
left join upload_token_status as known_name on known.status = known_name.code
left join upload_token_status as happened_name on happened.status = happened_name.code
where
    happened.partner_id = :partner_id
    -- Otherwise it was known then.
    and happened.valid_from > cast(:'at' as timestamptz)
    and (
        known.is_listed is distinct from happened.is_listed
        or known.status is distinct from happened.status
    )
group by 1, 2
order by 1, 2
