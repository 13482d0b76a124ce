-- What was stuck last Tuesday (or on any day), and what became of it?
-- Variables: partner_id, day
select
    known.token_id,
    known.user_id,
    status.name as status_then,
    greatest(known.created_at, known.updated_at) as last_moved_at,
    case
        when known.file_size_bytes > 0
            then round(
                100.0 * coalesce(known.uploaded_size_bytes, 0) / known.file_size_bytes
            )
    end as percent,
    upload.outcome as became
from upload_token_as_of(
    cast(cast(:'day' as date) + 1 as timestamp) at time zone kaltura_time_zone()
) as known
inner join upload_token_status as status on known.status = status.code
inner join upload_outcome as upload
    on known.partner_id = upload.partner_id and known.token_id = upload.token_id
where
    known.partner_id = :partner_id
    and known.is_listed
    and status.outcome_group = 'open'
    and greatest(known.created_at, known.updated_at)
    <= cast(cast(:'day' as date) as timestamp) at time zone kaltura_time_zone()
order by last_moved_at, known.token_id
