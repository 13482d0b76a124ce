-- What changed since a complete run: in all (is_total), and by user where an upload is in trouble.
--
-- since: its publication.  since_seen_at: the beginning of its walk, as of when it is known what was
-- stuck.  A token that changed several times counts by its state before and its state now; one that
-- failed, was opened again and failed again in the meantime is newly failed: see upload_failure.
-- What was pruned of the state before is not known any more, and tells no change.
with moved as (
    select
        token.user_id,
        sighting.is_first as first_seen,
        token.status = 3
        and before.status is distinct from 3
        and (before.token_id is not null or sighting.is_first) as closed,
        token.status in (4, 6)
        and exists (
            select 1 from upload_failure as failure
            where
                failure.partner_id = token.partner_id
                and failure.token_id = token.token_id
                and failure.known_since > %(since)s
        ) as failed,
        not token.is_listed and coalesce(before.is_listed, sighting.is_first) as gone,
        coalesce(now_status.outcome_group, 'open') = 'open' as is_open
    from upload_token as token
    left join upload_token_superseded as before
        on
            before.partner_id = token.partner_id
            and before.token_id = token.token_id
            and before.valid_from <= %(since)s
            and before.valid_to > %(since)s
    left join upload_token_horizon as pruned on pruned.partner_id = token.partner_id
    left join upload_token_status as now_status on now_status.code = token.status
    cross join lateral (
        select
            before.token_id is null
            and (
                token.version > 1
                and token.created_at <= %(since)s
                and pruned.horizon > %(since)s
                -- Otherwise it was first seen after that.
                and not exists (
                    select 1 from upload_token_superseded as sighting
                    where
                        sighting.partner_id = token.partner_id
                        and sighting.token_id = token.token_id
                        and sighting.version = 1
                )
            ) is not true as is_first
    ) as sighting
    where token.partner_id = %(partner_id)s and token.valid_from > %(since)s
),

change as (
    select
        user_id,
        cast(first_seen as int) as first_seen,
        cast(closed as int) as closed,
        0 as newly_stuck,
        cast(failed as int) as newly_failed,
        cast(gone as int) as gone,
        cast(gone and is_open as int) as gone_open
    from moved
    union all
    select
        user_id,
        0,
        0,
        1,
        0,
        0,
        0
    from stuck_upload
    where
        partner_id = %(partner_id)s
        and last_moved_at > cast(%(since_seen_at)s as timestamptz) - interval '24 hours'
),

counted as (
    select
        grouping(user_id) = 1 as is_total,
        user_id,
        coalesce(sum(first_seen), 0) as first_seen,
        coalesce(sum(closed), 0) as closed,
        coalesce(sum(newly_stuck), 0) as newly_stuck,
        coalesce(sum(newly_failed), 0) as newly_failed,
        coalesce(sum(gone), 0) as gone,
        coalesce(sum(gone_open), 0) as gone_open
    from change
    group by grouping sets ((), (user_id))
)

select
    *,
    count(*) filter (where not is_total) over () as total
from counted
where is_total or newly_stuck + newly_failed + gone_open > 0
order by is_total desc, newly_failed desc, newly_stuck desc, gone_open desc, user_id
limit %(rows)s;
