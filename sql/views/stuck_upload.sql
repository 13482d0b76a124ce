-- Open uploads that had not moved for 24 hours or more as of sync_freshness.open_seen_at.
--
-- open_seen_at is the start of the last published walk that read all open tokens.  What happened
-- later is unknown, so stuck_for does not grow without a sync.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- user_id: Kaltura user.
-- file_name: Name of the file.
-- status: PENDING, PARTIAL_UPLOAD or FULL_UPLOAD.
-- created_at: When Kaltura made the token; whole seconds.
-- updated_at: When Kaltura last changed the token.
-- last_moved_at: The later of created_at and updated_at.
-- stuck_for: open_seen_at minus last_moved_at: 24 hours or more.
-- file_size_bytes: Size announced, in bytes; NULL if none.
-- uploaded_size_bytes: Bytes received so far.
-- percent_received: Of the size announced, 0 to 100, one digit after the point; NULL if none was.
-- stuck_for_seconds: stuck_for in seconds.
create or replace view stuck_upload with (security_invoker = true) as
select
    token.partner_id,
    token.token_id,
    token.user_id,
    token.file_name,
    status.name as status,
    token.created_at,
    token.updated_at,
    greatest(token.created_at, token.updated_at) as last_moved_at,
    freshness.open_seen_at - greatest(token.created_at, token.updated_at) as stuck_for,
    token.file_size_bytes,
    token.uploaded_size_bytes,
    case
        when token.file_size_bytes > 0
            then least(
                100,
                round(
                    100.0 * greatest(coalesce(token.uploaded_size_bytes, 0), 0)
                    / token.file_size_bytes,
                    1
                )
            )
    end as percent_received,
    date_part(
        'epoch', freshness.open_seen_at - greatest(token.created_at, token.updated_at)
    ) as stuck_for_seconds
from upload_token as token
inner join sync_freshness as freshness on freshness.partner_id = token.partner_id
inner join upload_token_status as status on status.code = token.status
where
    token.is_listed
    and token.status in (0, 1, 2)
    and greatest(token.created_at, token.updated_at)
    <= freshness.open_seen_at - interval '24 hours'
