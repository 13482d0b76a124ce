-- Which uploads were resumed after half a day or more?
-- Variables: partner_id
select
    later.token_id,
    max(later.user_id) as user_id,
    count(*) as times_resumed,
    min(earlier.uploaded_size_bytes) as received_at_first,
    max(later.uploaded_size_bytes) as received_in_the_end,
    max(later.file_size_bytes) as announced,
    max(upload.outcome) as became
from upload_token_history as earlier
inner join upload_token_history as later
    on
        earlier.partner_id = later.partner_id
        and earlier.token_id = later.token_id
        and earlier.version + 1 = later.version
inner join upload_outcome as upload
    on later.partner_id = upload.partner_id and later.token_id = upload.token_id
where
    later.partner_id = :partner_id
    and earlier.status = 1
    and later.uploaded_size_bytes > earlier.uploaded_size_bytes
    and later.updated_at >= earlier.updated_at + interval '12 hours'
group by later.partner_id, later.token_id
order by later.token_id
