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
    token.partner_id,
    token.token_id,
    passed.name as status,
    passed.code as status_code,
    date_part(
        'epoch',
        case
            when token.version = 1
                then token.observed_at - least(token.created_at, token.observed_at)
            else token.status_happened_before - token.status_happened_after
        end
    ) as at_most_seconds,
    date_part(
        'epoch',
        case
            when token.version = 1
                then token.first_happened_at - least(token.created_at, token.observed_at)
            else token.status_happened_at - token.status_happened_after
        end
    ) as estimated_at_most_seconds,
    token.user_id,
    token.created_at
from upload_token as token
inner join upload_token_status as passed
    on
        passed.code < case
            when token.status in (0, 1, 2, 3) then token.status
            when token.status = 5 then 4
            else 3
        end
where token.is_listed and (token.version = 1 or token.status_version = 1)
