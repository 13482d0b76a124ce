-- Uploads that have failed, and since when: the outcome failed of upload_outcome, one row per token.
--
-- Told is the failure that holds: of one that failed, was opened again and failed again, the last
-- one.  Where its first version was pruned, the change after it tells, or the first version that is
-- left.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- user_id: Kaltura user.
-- file_name: Name of the file.
-- status: Name of the status in which it failed: TIMED_OUT or ERROR.
-- failed_at: Best estimate: between the next two.
-- failed_after: Not before this: when the last published walk began that saw it otherwise (or
--   created_at).
-- failed_before: Not after this: when the first reply that showed it failed had arrived.
-- created_at: When Kaltura made the token; whole seconds.
-- file_size_bytes: Size announced, in bytes; NULL if none.
-- uploaded_size_bytes: Bytes received.
-- known_since: Publication timestamp: since when the warehouse knows that it failed; NULL: not known
--   any more, because that version was pruned.
-- valid_from: Publication timestamp of the latest version, which is not before known_since: a
--   condition on it reads no other tokens.
create or replace view upload_failure with (security_invoker = true) as
select
    token.partner_id,
    token.token_id,
    token.user_id,
    token.file_name,
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
    end as failed_before,
    token.created_at,
    token.file_size_bytes,
    token.uploaded_size_bytes,
    case
        when
            -- Otherwise it began before, in a version that was pruned.
            change.from_status_code in (4, 6) is not true
            and (version.change_kind = 'first_seen' or version.status_version = version.version)
            then version.valid_from
    end as known_since,
    token.valid_from
from upload_token as token
-- The first version of the failure that holds, or what pruning has left of it: none after it is
-- otherwise.
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
            token.valid_from,
            token.status_version,
            token.status_happened_at,
            token.status_happened_after,
            token.status_happened_before
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
    token.status in (4, 6)
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
