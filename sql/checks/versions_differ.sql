-- A version differs from the previous one in a column that creates a version.
select
    later.partner_id,
    later.token_id,
    later.version,
    later.change_kind,
    later.run_id
from upload_token_superseded as earlier
join upload_token_history as later
    on later.partner_id = earlier.partner_id
    and later.token_id = earlier.token_id
    and later.version = earlier.version + 1
where
    (
        earlier.is_listed,
        earlier.user_id,
        earlier.status,
        earlier.file_name,
        earlier.file_size_bytes,
        earlier.uploaded_size_bytes,
        earlier.created_at,
        earlier.updated_at,
        earlier.attached_object_type,
        earlier.attached_object_id,
        earlier.extra
    ) is not distinct from (
        later.is_listed,
        later.user_id,
        later.status,
        later.file_name,
        later.file_size_bytes,
        later.uploaded_size_bytes,
        later.created_at,
        later.updated_at,
        later.attached_object_type,
        later.attached_object_id,
        later.extra
    )
