-- Uploads that failed in the days shown, or newly, and whether their user has uploaded the file since.
--
-- Those that were not uploaded again come first, the latest first.  Failed is what upload_outcome
-- calls so.  failed_at: the best estimate of when the failure that holds began, between the last
-- look that saw the upload otherwise and the first that saw it failed, as in the example query
-- failed_uploads.sql.  Uploaded again: the same user, the same file name, created later, and
-- succeeded.  is_new: published since the complete run before the last one.
with known_failures as (
    select
        token.token_id,
        token.user_id,
        token.file_name,
        case
            when change.from_status_code in (4, 6) then change.from_status
            else upload_token_status_name(version.status)
        end as status,
        token.created_at,
        token.file_size_bytes,
        token.uploaded_size_bytes,
        case
            -- Its first version was pruned: the change after it tells.
            when change.from_status_code in (4, 6) then change.from_happened_at
            when version.change_kind = 'first_seen' then version.first_happened_at
            when version.change_kind = 'changed' then version.status_happened_at
            -- Listed again: what failed meanwhile failed after it was last listed.
            when
                version.updated_at + interval '1 second' > change.from_happened_after
                and version.updated_at <= version.observed_at
                then greatest(version.updated_at, change.from_happened_after)
            else change.from_happened_after
                + (version.observed_at - change.from_happened_after) / 2
        end as failed_at,
        coalesce(
            version.valid_from > %(since)s
            -- Otherwise it began before, in a version that was pruned.
            and change.from_status_code in (4, 6) is not true
            and (version.change_kind = 'first_seen' or version.status_version = version.version),
            false
        ) as is_new
    from upload_token as token
    -- The first version of the failure that holds, or what pruning has left of it: none after it
    -- is otherwise.
    cross join lateral (
        select known.*
        from (
            select
                earlier.version,
                earlier.change_kind,
                earlier.status,
                earlier.created_at,
                earlier.updated_at,
                earlier.observed_at,
                earlier.first_happened_at,
                earlier.valid_from,
                earlier.status_version,
                earlier.status_happened_at
            from upload_token_superseded as earlier
            where
                earlier.partner_id = token.partner_id
                and earlier.token_id = token.token_id
                and earlier.version > coalesce(
                    (
                        select max(other.version)
                        from upload_token_superseded as other
                        where
                            other.partner_id = token.partner_id
                            and other.token_id = token.token_id
                            and (other.status in (4, 6)) is not true
                    ),
                    0
                )
            union all
            select
                token.version,
                token.change_kind,
                token.status,
                token.created_at,
                token.updated_at,
                token.observed_at,
                token.first_happened_at,
                token.valid_from,
                token.status_version,
                token.status_happened_at
        ) as known
        order by known.version
        limit 1
    ) as version
    left join upload_token_status_moment_log as change
        on
            change.partner_id = token.partner_id
            and change.token_id = token.token_id
            and change.version = version.version
    where
        token.partner_id = %(partner_id)s
        and token.status in (4, 6)
        -- It was published after it failed, so an index finds those since then.
        and token.valid_from >= least(
            cast(%(seen_from)s as timestamp) at time zone %(time_zone)s,
            cast(%(since)s as timestamptz)
        )
        -- As in upload_outcome, what was once closed has succeeded, whatever came after.
        and token.first_closed_at is null
        -- A version that was CLOSED and told no updated_at.  Such versions have an index.
        and not exists (
            select 1
            from upload_token_superseded as closed
            where
                closed.partner_id = token.partner_id
                and closed.token_id = token.token_id
                and closed.status = 3
                and closed.updated_at is null
        )
),

failed as materialized (
    select *
    from known_failures
    where
        is_new
        or failed_at >= cast(%(seen_from)s as timestamp) at time zone %(time_zone)s
),

uploaded_again as (
    select
        failed.token_id,
        min(later.created_at) as uploaded_again_at
    from failed
    inner join upload_outcome as later
        on
            later.user_id = failed.user_id
            and later.file_name = failed.file_name
            and later.created_at > failed.created_at
    where
        later.partner_id = %(partner_id)s
        and later.outcome = 'succeeded'
        -- With both ends Postgres expects a part of all uploads, and asks an index for it.
        and later.created_at > (select min(failed.created_at) from failed)
        and later.created_at < 'infinity'
    group by failed.token_id
)

select
    failed.*,
    uploaded_again.uploaded_again_at,
    count(*) over () as total,
    count(*) filter (where uploaded_again.uploaded_again_at is null) over () as to_act_on
from failed
left join uploaded_again on uploaded_again.token_id = failed.token_id
order by
    uploaded_again.uploaded_again_at is not null,
    failed.failed_at desc,
    failed.token_id
limit %(rows)s;
