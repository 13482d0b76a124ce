-- All versions under the names of a dbt snapshot, for models that expect one.
--
-- Columns not named here are those of upload_token_superseded.
-- is_current: Whether this is the latest version.
-- valid_to: When the next version was published, not included; NULL for the latest.
-- superseded_by_run_id: The run that published the next version; NULL for the latest.
-- dbt_scd_id: Key of the version: md5 of partner_id, token_id and version; stable for ever.
-- dbt_updated_at: valid_from.
-- dbt_valid_from: valid_from.
-- dbt_valid_to: valid_to; NULL for the latest.
-- dbt_is_deleted: 'True' if the token was not listed, else 'False': hard_deletes as new_record.
-- status_name: Name of status, UNKNOWN_<code> or UNKNOWN: the last one shown if not is_listed.
create or replace view upload_token_snapshot_dbt with (security_invoker = true) as
select
    known.partner_id,
    known.token_id,
    known.version,
    known.valid_from,
    known.valid_to,
    known.is_current,
    known.change_kind,
    known.changed_columns,
    known.is_listed,
    known.user_id,
    known.status,
    known.file_name,
    known.file_size_bytes,
    known.uploaded_size_bytes,
    known.created_at,
    known.updated_at,
    known.attached_object_type,
    known.attached_object_id,
    known.auto_finalize,
    known.upload_url,
    known.extra,
    known.observed_at,
    known.last_listed_at,
    known.absence_confirmed_at,
    known.run_id,
    known.superseded_by_run_id,
    md5(known.partner_id || '|' || known.token_id || '|' || known.version) as dbt_scd_id,
    known.valid_from as dbt_updated_at,
    known.valid_from as dbt_valid_from,
    known.valid_to as dbt_valid_to,
    case when known.is_listed then 'False' else 'True' end as dbt_is_deleted,
    known.status_name
from upload_token_history as known
