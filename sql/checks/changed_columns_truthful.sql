-- changed_columns names what differs from the previous version (volatile columns aside).
select
    partner_id,
    token_id,
    version,
    named,
    differing
from (
    select
        later.partner_id,
        later.token_id,
        later.version,
        array(
            select name from unnest(later.changed_columns) as name
            where name not in ('auto_finalize', 'upload_url')
            order by name collate "C"
        ) as named,
        array(
            select name
            from unnest(array[
                case when earlier.is_listed is distinct from later.is_listed
                    then 'is_listed' end,
                case when earlier.user_id is distinct from later.user_id
                    then 'user_id' end,
                case when earlier.status is distinct from later.status
                    then 'status' end,
                case when earlier.file_name is distinct from later.file_name
                    then 'file_name' end,
                case when earlier.file_size_bytes is distinct from later.file_size_bytes
                    then 'file_size_bytes' end,
                case when earlier.uploaded_size_bytes is distinct from later.uploaded_size_bytes
                    then 'uploaded_size_bytes' end,
                case when earlier.created_at is distinct from later.created_at
                    then 'created_at' end,
                case when earlier.updated_at is distinct from later.updated_at
                    then 'updated_at' end,
                case when earlier.attached_object_type is distinct from later.attached_object_type
                    then 'attached_object_type' end,
                case when earlier.attached_object_id is distinct from later.attached_object_id
                    then 'attached_object_id' end,
                case when earlier.extra is distinct from later.extra
                    then 'extra' end
            ]) as name
            where name is not null
            order by name collate "C"
        ) as differing
    from upload_token_superseded as earlier
    join upload_token_history as later
        on later.partner_id = earlier.partner_id
        and later.token_id = earlier.token_id
        and later.version = earlier.version + 1
) as versions
where named <> differing
union all
select
    partner_id,
    token_id,
    version,
    changed_columns as named,
    cast('{}' as text[]) as differing
from upload_token_history
where version = 1 and changed_columns is not null
