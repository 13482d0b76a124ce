-- One wide row per token, for tools in which one drags columns: texts, numbers, times and days only.
--
-- What the outcomes mean is said in upload_outcome.  For the uploads of some days, filter created_at
-- rather than created_day: it has an index.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- user_id: Kaltura user.
-- file_name: Name of the file; NULL also if not valid UTF-8.
-- status: Name of the status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED if it is no longer listed.
-- last_shown_status: The same, but the last one shown if it is no longer listed.
-- is_listed: Whether the service listed the token.
-- outcome: succeeded, failed, deleted, abandoned or still_open.
-- created_at: When Kaltura made the token; whole seconds.
-- created_day: Its day in time_zone.
-- created_week: Monday of its week in time_zone.
-- created_hour: Its hour of the day in time_zone, 0 to 23.
-- updated_at: When Kaltura last changed the token.
-- last_moved_at: The later of created_at and updated_at.
-- size_bucket: By the size announced: see upload_outcome.
-- size_bucket_order: 1 to 7, to sort the buckets by.
-- file_size_bytes: Size announced, in bytes.
-- uploaded_size_bytes: Bytes received.
-- seconds_to_complete: Of a succeeded one: see upload_outcome.
-- seconds_not_moved: Of a listed open one: sync_freshness.open_seen_at minus last_moved_at, not below
--   0; NULL for others, and where no run has read all open tokens.
-- attached_object_type: Kind of object it was used for.
-- attached_object_id: Id of the object it was used for.
-- versions: Number of its versions.
-- known_since: Publication timestamp of its latest version.
-- run_id: The run that published it.
-- time_zone: Zone of the days: kaltura_time_zone().
-- is_mature: Whether the outcome counts as final: see upload_outcome.
create or replace view upload_mart with (security_invoker = true) as
select
    outcome.partner_id,
    outcome.token_id,
    outcome.user_id,
    token.file_name,
    case when token.is_listed then upload_token_status_name(token.status) else 'NOT_LISTED' end
    as status,
    upload_token_status_name(token.status) as last_shown_status,
    token.is_listed,
    outcome.outcome,
    outcome.created_at,
    cast(outcome.created_at at time zone zone.name as date) as created_day,
    cast(date_trunc('week', outcome.created_at at time zone zone.name) as date) as created_week,
    cast(date_part('hour', outcome.created_at at time zone zone.name) as integer) as created_hour,
    token.updated_at,
    outcome.last_moved_at,
    outcome.size_bucket,
    cast(outcome.size_bucket_order as integer) as size_bucket_order,
    outcome.file_size_bytes,
    outcome.uploaded_size_bytes,
    outcome.seconds_to_complete,
    case
        -- greatest() leaves NULLs out.
        when
            token.is_listed
            and token.status in (0, 1, 2)
            and freshness.open_seen_at is not null
            -- date_part, because extract would compute in numeric.
            then greatest(
                date_part('epoch', freshness.open_seen_at - outcome.last_moved_at), 0
            )
    end as seconds_not_moved,
    token.attached_object_type,
    token.attached_object_id,
    token.version as versions,
    token.valid_from as known_since,
    token.run_id,
    zone.name as time_zone,
    outcome.is_mature
from upload_outcome as outcome
inner join upload_token as token
    on token.partner_id = outcome.partner_id and token.token_id = outcome.token_id
left join sync_freshness as freshness on freshness.partner_id = outcome.partner_id
cross join (select kaltura_time_zone() as name offset 0) as zone
