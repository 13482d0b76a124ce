-- Each version of each upload token: [valid_from, valid_to), and valid_to is null for the latest.
select
    partner_id,
    token_id,
    version,
    valid_from,
    valid_to,
    is_current,
    change_kind,
    array_to_string(changed_columns, ',') as changed_columns,
    is_listed,
    user_id,
    status_name as status,
    file_name,
    file_size_bytes,
    uploaded_size_bytes,
    created_at,
    updated_at,
    attached_object_type,
    attached_object_id,
    run_id
from {{ source('kaltura', 'upload_token_history') }}
