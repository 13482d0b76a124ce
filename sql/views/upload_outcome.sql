-- The outcome of each upload, as far as is known: one row per token.
--
-- Mutually exclusive, and together all tokens:
-- succeeded - was CLOSED at any time, whatever came after (closed tokens are purged in the end);
-- failed - TIMED_OUT or ERROR when last seen;
-- deleted - DELETED, or no longer listed, and none of the above;
-- abandoned - open (PENDING, PARTIAL_UPLOAD, FULL_UPLOAD) and last moved more than 7 days (168
-- hours) before sync_freshness.open_seen_at;
-- still_open - all others: those with an unknown status too.
--
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- user_id: Kaltura user.
-- created_at: When Kaltura made the token; whole seconds.
-- last_moved_at: The later of created_at and updated_at.
-- outcome: succeeded, failed, deleted, abandoned or still_open.
-- seconds_to_complete: Of a succeeded one: the least updated_at seen with status CLOSED, minus
--   created_at; in whole seconds by Kaltura's clock.  Too long if the token was changed after it was
--   closed and before it was seen so; NULL if not known.  See upload_token.first_closed_at.
-- file_size_bytes: Size announced, in bytes.
-- uploaded_size_bytes: Bytes received.
-- size_bucket: By the size announced (if none: by the bytes received of a succeeded one), in
--   powers of ten, lower bound included: < 1 MB, 1-10 MB, 10-100 MB, 100 MB-1 GB, 1-10 GB, > 10 GB;
--   unknown.
-- size_bucket_order: 1 to 7, to sort the buckets by.
-- status: Name of the latest status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED when it disappeared.
-- file_name: Name of the file.
-- is_mature: Whether the outcome counts as final: it is not still_open, or the token last moved more
--   than 7 days before sync_freshness.open_seen_at.  Only an abandoned upload that goes on after all,
--   or one that Kaltura lists again, still changes then.
create or replace view upload_outcome with (security_invoker = true) as
select
    token.partner_id,
    token.token_id,
    token.user_id,
    token.created_at,
    greatest(token.created_at, token.updated_at) as last_moved_at,
    case
        when was_closed.ever then 'succeeded'
        when token.status in (4, 6) then 'failed'
        when token.status = 5 or not token.is_listed then 'deleted'
        when
            token.status in (0, 1, 2)
            and greatest(token.created_at, token.updated_at)
            < freshness.open_seen_at - interval '168 hours'
            then 'abandoned'
        else 'still_open'
    end as outcome,
    case
        -- date_part, because extract would compute in numeric.
        when closed.first_at >= token.created_at
            then date_part('epoch', closed.first_at - token.created_at)
    end as seconds_to_complete,
    token.file_size_bytes,
    token.uploaded_size_bytes,
    upload_size_bucket(cast(size.bucket_order as smallint)) as size_bucket,
    cast(size.bucket_order as smallint) as size_bucket_order,
    case
        when not token.is_listed then 'NOT_LISTED'
        else coalesce(status.name, 'UNKNOWN_' || token.status, 'UNKNOWN')
    end as status,
    token.file_name,
    (
        token.status in (3, 4, 5, 6)
        or not token.is_listed
        or was_closed.ever
        or greatest(token.created_at, token.updated_at)
        < freshness.open_seen_at - interval '168 hours'
    ) is true as is_mature
-- Those listed and the others: each have an index by created_at.
from (
    select
        present.partner_id,
        present.token_id,
        present.user_id,
        present.status,
        present.file_name,
        present.file_size_bytes,
        present.uploaded_size_bytes,
        present.created_at,
        present.updated_at,
        present.is_listed,
        present.version,
        present.first_closed_at
    from upload_token as present
    where present.is_listed
    union all
    select
        gone.partner_id,
        gone.token_id,
        gone.user_id,
        gone.status,
        gone.file_name,
        gone.file_size_bytes,
        gone.uploaded_size_bytes,
        gone.created_at,
        gone.updated_at,
        gone.is_listed,
        gone.version,
        gone.first_closed_at
    from upload_token as gone
    where not gone.is_listed
) as token
left join sync_freshness as freshness on freshness.partner_id = token.partner_id
left join upload_token_status as status on status.code = token.status
cross join lateral (
    select token.first_closed_at as first_at
) as closed
cross join lateral (
    select
        token.status is not distinct from 3
        or closed.first_at is not null
        -- A version that was CLOSED and told no updated_at.  Such versions have an index.
        or (
            token.version > 1
            and exists (
                select 1 from upload_token_superseded as earlier
                where
                    earlier.partner_id = token.partner_id
                    and earlier.token_id = token.token_id
                    and earlier.status = 3
                    and earlier.updated_at is null
            )
        ) as ever
) as was_closed
cross join lateral (
    select
        coalesce(
            token.file_size_bytes,
            case when was_closed.ever then token.uploaded_size_bytes end
        ) as bytes
) as counted
cross join lateral (
    select
        case
            when counted.bytes >= 0 then 1 + width_bucket(
                counted.bytes,
                cast('{1000000,10000000,100000000,1000000000,10000000000}' as bigint [])
            )
            else 7
        end as bucket_order
) as size
