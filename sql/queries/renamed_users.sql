-- Which users got another id, and what did they upload under all of their ids?
-- Variables: partner_id
select
    rename.user_id_before,
    rename.user_id_after,
    rename.first_seen_at,
    rename.tokens as tokens_renamed,
    count(token.token_id) filter (where token.user_id = rename.user_id_before) as left_behind,
    count(token.token_id) as uploads_in_all
from upload_user_rename as rename
left join upload_token as token
    on
        rename.partner_id = token.partner_id
        and token.user_id in (rename.user_id_before, rename.user_id_after)
where rename.partner_id = :partner_id
group by
    rename.user_id_before,
    rename.user_id_after,
    rename.first_seen_at,
    rename.tokens
order by rename.first_seen_at, rename.user_id_before
