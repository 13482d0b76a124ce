-- Which uploads failed, when, whose were they, and how far did they get?
-- Variables: partner_id, since
select
    upload.token_id,
    upload.user_id,
    upload.file_name,
    change.to_status as status,
    change.happened_at as failed_at,
    -- What fails while it is not listed failed after it was last listed.
    case
        when change.change_kind = 'relisted' then past.last_listed_at
        else change.happened_after
    end as failed_after,
    change.happened_before as failed_before,
    case
        when upload.file_size_bytes > 0
            then round(100.0 * coalesce(upload.uploaded_size_bytes, 0) / upload.file_size_bytes)
    end as percent
from upload_token_status_history as change
cross join lateral (
    select
        min(known.version) filter (where known.to_status_code in (4, 6)) as first_failed,
        max(known.happened_after) filter (
            where known.to_status = 'NOT_LISTED' and known.version < change.version
        ) as last_listed_at
    from upload_token_status_history as known
    where known.partner_id = change.partner_id and known.token_id = change.token_id
) as past
inner join upload_outcome as upload
    on change.partner_id = upload.partner_id and change.token_id = upload.token_id
where
    change.partner_id = :partner_id
    and change.to_status_code in (4, 6)
    and change.happened_at >= cast(:'since' as timestamptz)
    and change.version = past.first_failed
    and upload.outcome = 'failed'
order by failed_at desc, upload.token_id
