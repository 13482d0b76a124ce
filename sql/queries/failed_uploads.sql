-- Which uploads failed, when, whose were they, and how far did they get?
-- Variables: partner_id, since
with failed as (
    select
        token.token_id,
        token.user_id,
        token.file_name,
        token.file_size_bytes,
        token.uploaded_size_bytes,
        case
            when change.from_status_code in (4, 6) then change.from_status
            else upload_token_status_name(version.status)
        end as status,
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
        case
            when change.from_status_code in (4, 6) then change.from_happened_after
            when version.change_kind = 'first_seen' then least(version.created_at, version.observed_at)
            when version.change_kind = 'changed' then version.status_happened_after
            else change.from_happened_after
        end as failed_after,
        case
            when change.from_status_code in (4, 6) then change.from_happened_before
            when version.change_kind = 'changed' then version.status_happened_before
            else version.observed_at
        end as failed_before
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
                earlier.status_happened_at,
                earlier.status_happened_after,
                earlier.status_happened_before
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
                token.status_happened_at,
                token.status_happened_after,
                token.status_happened_before
        ) as known
        order by known.version
        limit 1
    ) as version
    left join upload_token_status_moment_log as change
        on
            token.partner_id = change.partner_id
            and token.token_id = change.token_id
            and change.version = version.version
    where
        token.partner_id = :partner_id
        and token.status in (4, 6)
        -- It was published after it failed: so an index finds those since then.
        and token.valid_from >= cast(:'since' as timestamptz)
)

select
    failed.token_id,
    failed.user_id,
    failed.file_name,
    failed.status,
    failed.failed_at,
    failed.failed_after,
    failed.failed_before,
    case
        when failed.file_size_bytes > 0
            then round(100.0 * coalesce(failed.uploaded_size_bytes, 0) / failed.file_size_bytes)
    end as percent
from failed
inner join upload_outcome as upload
    on upload.partner_id = :partner_id and failed.token_id = upload.token_id
where
    upload.outcome = 'failed'
    and failed.failed_at >= cast(:'since' as timestamptz)
order by failed.failed_at desc, failed.token_id
