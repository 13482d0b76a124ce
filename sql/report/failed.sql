-- Uploads that failed in the days shown, and whether their user has uploaded the file since.
--
-- Those that were not uploaded again come first, the latest first.  Failed is what upload_outcome
-- calls so.  failed_at: the best estimate of when it first was, between the last look that saw it
-- otherwise and the one that saw it failed.  Uploaded again: the same user, the same file name,
-- created later, and succeeded.  is_new: published since the complete run before the last one.
with failed as materialized (
    select
        token.token_id,
        token.user_id,
        token.file_name,
        change.to_status as status,
        token.created_at,
        token.file_size_bytes,
        token.uploaded_size_bytes,
        change.happened_at as failed_at,
        coalesce(change.valid_from > %(since)s, false) as is_new
    from (
        select
            moment.partner_id,
            moment.token_id,
            moment.version,
            moment.to_status,
            moment.happened_at,
            moment.valid_from
        from upload_token_status_history as moment
        where
            moment.partner_id = %(partner_id)s
            and moment.to_status_code in (4, 6)
            and moment.happened_at >= cast(%(seen_from)s as timestamp) at time zone %(time_zone)s
        union all
        -- What was pruned, as the change after it tells it, or the latest version.
        select
            told.partner_id,
            told.token_id,
            told.version,
            told.to_status,
            told.happened_at,
            cast(null as timestamptz) as valid_from
        from (
            select
                moment.partner_id,
                moment.token_id,
                moment.from_version as version,
                moment.from_status as to_status,
                moment.from_happened_at as happened_at
            from upload_token_status_moment_log as moment
            where
                moment.partner_id = %(partner_id)s
                and moment.from_status_code in (4, 6)
                and moment.valid_from
                >= cast(%(seen_from)s as timestamp) at time zone %(time_zone)s
            union all
            select
                latest.partner_id,
                latest.token_id,
                latest.status_version as version,
                upload_token_status_name(latest.status) as to_status,
                latest.status_happened_at as happened_at
            from upload_token as latest
            where
                latest.partner_id = %(partner_id)s
                and latest.is_listed
                and latest.status in (4, 6)
                and latest.status_version < latest.version
                and latest.valid_from
                >= cast(%(seen_from)s as timestamp) at time zone %(time_zone)s
        ) as told
        where
            exists (
                select 1 from pruning
                where
                    pruning.partner_id = %(partner_id)s
                    and pruning.kind = 'versions'
                    and pruning.deleted > 0
            )
            and told.happened_at >= cast(%(seen_from)s as timestamp) at time zone %(time_zone)s
            and not exists (
                select 1 from upload_token_superseded as kept
                where
                    kept.partner_id = told.partner_id
                    and kept.token_id = told.token_id
                    and kept.version = told.version
            )
    ) as change
    -- One row for each change, by the key of its token: few of all tokens.
    cross join lateral (
        select
            min(known.version) filter (where known.to_status_code in (4, 6)) as first_failed,
            bool_or(known.to_status_code = 3) is true as was_closed
        from upload_token_status_history as known
        where known.partner_id = change.partner_id and known.token_id = change.token_id
    ) as past
    cross join lateral (
        select * from upload_token as latest
        where latest.partner_id = change.partner_id and latest.token_id = change.token_id
        limit 1
    ) as token
    where
        -- Later changes of what has failed are others.
        change.version <= coalesce(past.first_failed, change.version)
        and not exists (
            select 1 from upload_token_status_moment_log as later
            where
                later.partner_id = change.partner_id
                and later.token_id = change.token_id
                and later.from_version < change.version
                and later.from_status_code in (4, 6)
        )
        -- As in upload_outcome, what was once closed has succeeded, whatever came after.
        and not past.was_closed
        and token.first_closed_at is null
        and token.status in (4, 6)
),

uploaded_again as (
    select
        failed.token_id,
        min(later.created_at) as uploaded_again_at
    from failed
    inner join upload_outcome as later
        on
            later.user_id = failed.user_id
            and later.file_name = failed.file_name
            and later.created_at > failed.created_at
    where
        later.partner_id = %(partner_id)s
        and later.outcome = 'succeeded'
        -- With both ends Postgres expects a part of all uploads, and asks an index for it.
        and later.created_at > (select min(failed.created_at) from failed)
        and later.created_at < 'infinity'
    group by failed.token_id
)

select
    failed.*,
    uploaded_again.uploaded_again_at,
    count(*) over () as total,
    count(*) filter (where uploaded_again.uploaded_again_at is null) over () as to_act_on
from failed
left join uploaded_again on uploaded_again.token_id = failed.token_id
order by
    uploaded_again.uploaded_again_at is not null,
    failed.failed_at desc,
    failed.token_id
limit %(rows)s;
