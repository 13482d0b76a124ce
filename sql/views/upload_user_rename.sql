-- Users that were given another id, as far as tokens show it: one row for each pair of ids.
--
-- From the versions in which user_id changed.  Tokens that were no longer listed by then keep the
-- id before for ever: to count a person once, read user_id_before as user_id_after.  Chains
-- (a to b, b to c) are rows of their own, and a token that was given to another user looks the same:
-- compare tokens with how many the user has.  A user that was erased has a pseudonym here too.  A
-- change of which the version before was pruned is not told.
-- partner_id: Kaltura account (partner).
-- user_id_before: The id that tokens had.
-- user_id_after: The id that they got.
-- first_seen_at: When a reply showed the first of these changes.
-- last_seen_at: When a reply showed the last of them.
-- tokens: Number of tokens that changed so.
-- run_id: The run that published the first of these changes.
create or replace view upload_user_rename with (security_invoker = true) as
select
    became.partner_id,
    was.user_id as user_id_before,
    became.user_id as user_id_after,
    min(became.observed_at) as first_seen_at,
    max(became.observed_at) as last_seen_at,
    count(distinct became.token_id) as tokens,
    min(became.run_id) as run_id
from upload_token_history as became
inner join upload_token_superseded as was
    on
        was.partner_id = became.partner_id
        and was.token_id = became.token_id
        and was.version = became.version - 1
where 'user_id' = any(became.changed_columns) and was.user_id <> became.user_id
group by became.partner_id, was.user_id, became.user_id
