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
--   closed and before it was seen so; NULL if not known.
-- file_size_bytes: Size announced, in bytes.
-- uploaded_size_bytes: Bytes received.
-- size_bucket: By the size announced (if none: by the bytes received of a succeeded one), in
--   powers of ten, lower bound included: < 1 MB, 1-10 MB, 10-100 MB, 100 MB-1 GB, 1-10 GB, > 10 GB;
--   unknown.
-- size_bucket_order: 1 to 7, to sort the buckets by.
create or replace view upload_outcome with (security_invoker = true) as
select
    token.partner_id,
    token.token_id,
    token.user_id,
    token.created_at,
    greatest(token.created_at, token.updated_at) as last_moved_at,
    case
        when token.status = 3 or closed.token_id is not null then 'succeeded'
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
        when
            least(closed.updated_at, case when token.status = 3 then token.updated_at end)
            >= token.created_at
            -- date_part, because extract would compute in numeric.
            then date_part(
                'epoch',
                least(closed.updated_at, case when token.status = 3 then token.updated_at end)
                - token.created_at
            )
    end as seconds_to_complete,
    token.file_size_bytes,
    token.uploaded_size_bytes,
    upload_size_bucket(cast(size.bucket_order as smallint)) as size_bucket,
    cast(size.bucket_order as smallint) as size_bucket_order
from upload_token as token
left join sync_freshness as freshness on freshness.partner_id = token.partner_id
left join (
    select
        earlier.partner_id,
        earlier.token_id,
        min(earlier.updated_at) as updated_at
    from upload_token_superseded as earlier
    where earlier.status = 3
    group by earlier.partner_id, earlier.token_id
) as closed
    on closed.partner_id = token.partner_id and closed.token_id = token.token_id
cross join lateral (
    select
        coalesce(
            token.file_size_bytes,
            case
                when token.status = 3 or closed.token_id is not null then token.uploaded_size_bytes
            end
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
