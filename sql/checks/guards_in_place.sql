-- The constraints and indexes that make other violations impossible exist and are valid.
select
    cast(null as integer) as partner_id,
    guard.name as missing_or_invalid
from (
    values
        ('ck_erasure_hashes'),
        ('ck_erasure_key_length'),
        ('ck_erasure_kind'),
        ('ck_pruning_kind'),
        ('ck_sync_page_body_sha256'),
        ('ck_sync_page_compared_by'),
        ('ck_sync_page_numbers'),
        ('ck_sync_run_json'),
        ('ck_sync_run_mode'),
        ('ck_sync_run_status'),
        ('ck_unobserved_token_reason'),
        ('ck_upload_token_absence'),
        ('ck_upload_token_change_kind'),
        ('ck_upload_token_changed_columns'),
        ('ck_upload_token_created_at'),
        ('ck_upload_token_is_listed'),
        ('ck_upload_token_staging_kind'),
        ('ck_upload_token_status_outcome_group'),
        ('ck_upload_token_status_moment_log_moments'),
        ('ck_upload_token_status_moment_log_version'),
        ('ck_upload_token_superseded_absence'),
        ('ck_upload_token_superseded_change_kind'),
        ('ck_upload_token_superseded_changed_columns'),
        ('ck_upload_token_superseded_created_at'),
        ('ck_upload_token_superseded_is_listed'),
        ('ck_upload_token_superseded_updated_at'),
        ('ck_upload_token_superseded_valid_from'),
        ('ck_upload_token_superseded_valid_to'),
        ('ck_upload_token_superseded_version'),
        ('ck_upload_token_updated_at'),
        ('ck_upload_token_valid_from'),
        ('ck_upload_token_version'),
        ('fk_rejected_row_run_id'),
        ('fk_sync_page_run_id'),
        ('fk_sync_run_resumed_from'),
        ('fk_unobserved_token_run_id'),
        ('ix_rejected_row_duplicate'),
        ('ix_sync_run_partner'),
        ('ix_sync_run_published'),
        ('ix_sync_run_unpublished'),
        ('ix_upload_token_first_happened'),
        ('ix_upload_token_gone_created'),
        ('ix_upload_token_listed'),
        ('ix_upload_token_marked'),
        ('ix_upload_token_open_created'),
        ('ix_upload_token_staging_created'),
        ('ix_upload_token_went_back'),
        ('ix_upload_token_status_moment_log_created'),
        ('ix_upload_token_status_moment_log_published'),
        ('ix_upload_token_superseded_closed_undated'),
        ('ix_upload_token_superseded_first_happened'),
        ('ix_upload_token_superseded_marked'),
        ('ix_upload_token_superseded_valid'),
        ('ix_upload_token_superseded_valid_from'),
        ('ix_upload_token_user'),
        ('ix_upload_token_valid_from'),
        ('pk_erasure'),
        ('pk_erasure_key'),
        ('pk_pruning'),
        ('pk_sync_page'),
        ('pk_sync_run'),
        ('pk_unobserved_token'),
        ('pk_upload_bytes_arrival_log'),
        ('pk_upload_token'),
        ('pk_upload_token_status'),
        ('pk_upload_token_status_count_log'),
        ('pk_upload_token_status_moment_log'),
        ('pk_upload_token_superseded'),
        ('uq_rejected_row_payload'),
        ('uq_sync_run_running'),
        ('uq_upload_token_status_name')
) as guard (name)
where
    not exists (
        select 1 from pg_constraint as found
        where
            found.conname = guard.name
            and found.connamespace = to_regnamespace(quote_ident(current_schema()))
            and found.convalidated
    )
    and not exists (
        select 1
        from pg_class as found
        join pg_index as index_of on index_of.indexrelid = found.oid
        where
            found.relname = guard.name
            and found.relnamespace = to_regnamespace(quote_ident(current_schema()))
            and index_of.indisvalid
    )
