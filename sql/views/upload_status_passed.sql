-- What each token that is still as it was first seen had passed before: the statuses on the way.
--
-- A part of upload_status_duration: query that.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- status: Name of the status.
-- status_code: Its code.
-- at_most_seconds: From created_at to when the token was seen.
-- estimated_at_most_seconds: The same with upload_token_status_history.happened_at.
-- user_id: Kaltura user, of the latest version.
-- created_at: When Kaltura made the token; whole seconds.
create or replace view upload_status_passed with (security_invoker = true) as
select
    latest.partner_id,
    latest.token_id,
    passed.name as status,
    passed.code as status_code,
    latest.passed_at_most_seconds as at_most_seconds,
    latest.passed_estimated_at_most_seconds as estimated_at_most_seconds,
    latest.user_id,
    latest.created_at
from upload_status_now as latest
inner join upload_token_status as passed on passed.code < latest.passed
