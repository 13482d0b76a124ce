-- All versions of all upload tokens, half-open [valid_from, valid_to); the latest has is_current.
--
-- Columns not named here are those of upload_token_superseded.
-- is_current: Whether this is the latest version.
-- valid_to: When the next version was published, not included; NULL for the latest.
-- superseded_by_run_id: The run that published the next version; NULL for the latest.
-- status_name: Name of status, UNKNOWN_<code> or UNKNOWN: the last one shown if not is_listed.
-- valid_period: [valid_from, valid_to), without an end for the latest: valid_period @> a moment finds
--   the version of then; "between valid_from and valid_to" finds no latest version.
create or replace view upload_token_history with (security_invoker = true) as
select
    partner_id,
    token_id,
    version,
    valid_from,
    cast(null as timestamptz) as valid_to,
    true as is_current,
    change_kind,
    changed_columns,
    is_listed,
    user_id,
    status,
    file_name,
    file_size_bytes,
    uploaded_size_bytes,
    created_at,
    updated_at,
    attached_object_type,
    attached_object_id,
    auto_finalize,
    upload_url,
    extra,
    observed_at,
    last_listed_at,
    absence_confirmed_at,
    run_id,
    cast(null as bigint) as superseded_by_run_id,
    upload_token_status_name(status) as status_name,
    tstzrange(valid_from, null) as valid_period
from upload_token
union all
select
    partner_id,
    token_id,
    version,
    valid_from,
    valid_to,
    false as is_current,
    change_kind,
    changed_columns,
    is_listed,
    user_id,
    status,
    file_name,
    file_size_bytes,
    uploaded_size_bytes,
    created_at,
    updated_at,
    attached_object_type,
    attached_object_id,
    auto_finalize,
    upload_url,
    extra,
    observed_at,
    last_listed_at,
    absence_confirmed_at,
    run_id,
    superseded_by_run_id,
    upload_token_status_name(status) as status_name,
    tstzrange(valid_from, valid_to) as valid_period
from upload_token_superseded
