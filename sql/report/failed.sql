-- Uploads that failed in the days shown, or newly, and whether their user has uploaded the file since.
--
-- Those that were not uploaded again come first, the latest first.  What has failed and when is what
-- upload_failure says.  Uploaded again: the same user, the same file name, created later, and
-- succeeded.  is_new: published since the complete run before the last one.
with failed as materialized (
    select
        known.token_id,
        known.user_id,
        known.file_name,
        known.status,
        known.created_at,
        known.file_size_bytes,
        known.uploaded_size_bytes,
        known.failed_at,
        coalesce(known.known_since > %(since)s, false) as is_new
    from upload_failure as known
    where
        known.partner_id = %(partner_id)s
        -- It was published after it failed, so an index finds those since then.
        and known.valid_from >= least(
            cast(%(seen_from)s as timestamp) at time zone %(time_zone)s,
            cast(%(since)s as timestamptz)
        )
        and (
            known.known_since > %(since)s
            or known.failed_at >= cast(%(seen_from)s as timestamp) at time zone %(time_zone)s
        )
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
