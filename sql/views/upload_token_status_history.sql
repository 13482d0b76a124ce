-- One row for each change of status or presence of a token, and when it must have happened.
--
-- The interval [happened_after, happened_before] contains the true moment, as far as the clocks of
-- the service and of the database agree: the old state was still seen by a published walk that
-- began at happened_after, the new one by a reply that had arrived at happened_before.  A token that
-- changed twice between two runs has one row, and the interval is that of the last change or
-- earlier.  A version whose predecessor was pruned has from_status NULL, as when first seen.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- version: The version that brought the change; 1 is the first one seen.
-- from_status: Name of the status before; NOT_LISTED after an absence; NULL when first seen.
-- to_status: Name of the new status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED when it disappeared.
-- from_status_code: Code of from_status; NULL when first seen, and for NOT_LISTED and UNKNOWN.
-- to_status_code: Code of to_status; NULL for NOT_LISTED and UNKNOWN.
-- change_kind: first_seen, changed, absent or relisted.
-- happened_at: Best estimate: updated_at where it fits (PENDING when first seen: created_at), else
--   the middle of the interval.
-- happened_after: Not before this: when the last published walk that saw the old state began; when
--   first seen created_at.
-- happened_before: Not after this: when the reply that showed the new state (an absence: that
--   confirmed it) had arrived.
-- time_in_from_status: happened_at minus happened_at of the change before; NULL when first seen.
--   Do not average it: it is only of statuses that a run saw.  upload_status_duration has all.
-- valid_from: Publication timestamp: since when the warehouse knows of it.
-- run_id: The run that published it.
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
    -- Not a window function, so that a condition on any column is applied first.
    case
        when moment.version > 1 then (
            select moment.happened_at - before.happened_at
            from upload_token_status_moment as before
            where
                before.partner_id = moment.partner_id
                and before.token_id = moment.token_id
                and before.version < moment.version
            order by before.version desc
            limit 1
        )
    end as time_in_from_status,
    moment.valid_from,
    moment.run_id
from upload_token_status_moment as moment
