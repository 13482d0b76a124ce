-- Uploads that failed in the days shown, and whether their user has uploaded the file since.
--
-- Those that were not uploaded again come first, the latest first.  Uploaded again: the same user,
-- the same file name, created later, and closed.
with failed as materialized (
    select
        token.token_id,
        token.user_id,
        token.file_name,
        status.name as status,
        token.created_at,
        token.file_size_bytes,
        token.uploaded_size_bytes,
        token.valid_from,
        -- Of several versions in which it had failed the first one: later changes are others.
        coalesce(
            least(earlier.failed_at, token.updated_at), token.observed_at
        ) as failed_at
    from upload_token as token
    inner join upload_token_status as status on status.code = token.status
    left join lateral (
        select
            bool_or(known.status = 3) as was_closed,
            min(known.updated_at) filter (where known_status.outcome_group = 'failed') as failed_at
        from upload_token_superseded as known
        left join upload_token_status as known_status on known_status.code = known.status
        where known.partner_id = token.partner_id and known.token_id = token.token_id
    ) as earlier on true
    where
        token.partner_id = %(partner_id)s
        and status.outcome_group = 'failed'
        and coalesce(token.updated_at, token.observed_at)
        >= cast(%(seen_from)s as timestamp) at time zone %(time_zone)s
        -- As in upload_outcome, what was once closed has succeeded, whatever came after.
        and earlier.was_closed is not true
),

uploaded_again as (
    select
        failed.token_id,
        min(later.created_at) as uploaded_again_at
    from failed
    inner join upload_token as later
        on
            later.user_id = failed.user_id
            and later.file_name = failed.file_name
            and later.created_at > failed.created_at
    where later.partner_id = %(partner_id)s and later.status = 3
    group by failed.token_id
),

listed as (
    select
        failed.*,
        uploaded_again.uploaded_again_at,
        count(*) over () as total,
        count(*) filter (where uploaded_again.uploaded_again_at is null) over () as to_act_on
    from failed
    left join uploaded_again on uploaded_again.token_id = failed.token_id
    where failed.failed_at >= cast(%(seen_from)s as timestamp) at time zone %(time_zone)s
    order by
        uploaded_again.uploaded_again_at is not null,
        failed.failed_at desc,
        failed.token_id
    limit %(rows)s
)

select
    listed.*,
    -- Of those shown only: it failed between the complete run before the last and now.
    coalesce(listed.valid_from > %(since)s, false)
    and not exists (
        select 1
        from upload_token_superseded as before
        inner join upload_token_status as status on status.code = before.status
        where
            before.partner_id = %(partner_id)s
            and before.token_id = listed.token_id
            and before.valid_from <= %(since)s
            and before.valid_to > %(since)s
            and status.outcome_group = 'failed'
    ) as is_new
from listed
order by listed.uploaded_again_at is not null, listed.failed_at desc, listed.token_id;
