-- One row for each change of status or presence of a token, and when it must have happened.
--
-- The interval [happened_after, happened_before] contains the true moment, as far as the clocks of
-- the service and of the database agree: the old state was still seen by a published walk that
-- began at happened_after, the new one by a reply that had arrived at happened_before.  A token that
-- changed twice between two runs has one row, and the interval is that of the last change or
-- earlier.  A row stays as it was published (upload_token_status_moment_log; the first sightings are
-- told by the versions 1), until its version is pruned.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- version: The version that brought the change; 1 is the first one seen.
-- from_status: Name of the status before; NOT_LISTED after an absence; NULL when first seen, and
--   where the version before had been pruned when this table was made.
-- to_status: Name of the new status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED when it disappeared.
-- from_status_code: Code of from_status; NULL when first seen, and for NOT_LISTED and UNKNOWN.
-- to_status_code: Code of to_status; NULL for NOT_LISTED and UNKNOWN.
-- change_kind: first_seen, changed, absent or relisted.
-- happened_at: Best estimate: updated_at where it fits (PENDING when first seen: created_at), else
--   the middle of the interval; never before happened_at of the change before, as far as the
--   database server's clock was not set back.
-- happened_after: Not before this: when the last published walk that saw the old state began; when
--   first seen created_at.
-- happened_before: Not after this: when the reply that showed the new state (an absence: that
--   confirmed it) had arrived.
-- time_in_from_status: happened_at minus happened_at of the change before; NULL when first seen.
--   Do not average it: it is only of statuses that a run saw.  upload_status_duration has all.
-- valid_from: Publication timestamp: since when the warehouse knows of it.
-- run_id: The run that published it.
-- time_in_from_status_seconds: time_in_from_status in seconds.
create or replace view upload_token_status_history with (security_invoker = true) as
select
    moment.partner_id,
    moment.token_id,
    moment.version,
    moment.from_status,
    moment.to_status,
    moment.from_status_code,
    moment.to_status_code,
    moment.change_kind,
    moment.happened_at,
    moment.happened_after,
    moment.happened_before,
    moment.happened_at - moment.from_happened_at as time_in_from_status,
    moment.valid_from,
    moment.run_id,
    date_part('epoch', moment.happened_at - moment.from_happened_at) as time_in_from_status_seconds
from upload_token_status_moment_log as moment
union all
select
    first_seen.partner_id,
    first_seen.token_id,
    first_seen.version,
    cast(null as text) as from_status,
    coalesce(status.name, 'UNKNOWN_' || first_seen.status, 'UNKNOWN') as to_status,
    cast(null as smallint) as from_status_code,
    first_seen.status as to_status_code,
    first_seen.change_kind,
    first_seen.first_happened_at as happened_at,
    least(first_seen.created_at, first_seen.observed_at) as happened_after,
    first_seen.observed_at as happened_before,
    cast(null as interval) as time_in_from_status,
    first_seen.valid_from,
    first_seen.run_id,
    cast(null as double precision) as time_in_from_status_seconds
from upload_token as first_seen
left join upload_token_status as status on status.code = first_seen.status
where first_seen.version = 1
union all
select
    first_seen.partner_id,
    first_seen.token_id,
    first_seen.version,
    cast(null as text) as from_status,
    coalesce(status.name, 'UNKNOWN_' || first_seen.status, 'UNKNOWN') as to_status,
    cast(null as smallint) as from_status_code,
    first_seen.status as to_status_code,
    first_seen.change_kind,
    first_seen.first_happened_at as happened_at,
    least(first_seen.created_at, first_seen.observed_at) as happened_after,
    first_seen.observed_at as happened_before,
    cast(null as interval) as time_in_from_status,
    first_seen.valid_from,
    first_seen.run_id,
    cast(null as double precision) as time_in_from_status_seconds
from upload_token_superseded as first_seen
left join upload_token_status as status on status.code = first_seen.status
where first_seen.version = 1
