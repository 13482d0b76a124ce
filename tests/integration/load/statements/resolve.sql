SELECT version.change_kind, count(*) AS count_1
FROM (SELECT CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN CASE WHEN known_row.is_listed THEN %(param_1)s::VARCHAR END WHEN (known_row.token_id IS NULL) THEN %(param_2)s::VARCHAR WHEN (known_row.is_listed IS false) THEN %(param_3)s::VARCHAR WHEN (resolved.user_id IS NOT NULL
AND resolved.user_id IS DISTINCT FROM known_row.user_id
OR resolved.status IS DISTINCT FROM known_row.status
OR resolved.file_name IS DISTINCT FROM known_row.file_name
OR resolved.file_size_bytes IS DISTINCT FROM known_row.file_size_bytes
OR resolved.uploaded_size_bytes IS DISTINCT FROM known_row.uploaded_size_bytes
OR resolved.created_at IS DISTINCT FROM known_row.created_at
OR resolved.updated_at IS DISTINCT FROM known_row.updated_at
OR resolved.attached_object_type IS DISTINCT FROM known_row.attached_object_type
OR resolved.attached_object_id IS DISTINCT FROM known_row.attached_object_id
OR resolved.extra IS DISTINCT FROM known_row.extra) THEN %(param_4)s::VARCHAR END AS change_kind
FROM (SELECT DISTINCT ON (upload_token_staging.token_id) upload_token_staging.walk_id, upload_token_staging.partner_id, upload_token_staging.token_id, upload_token_staging.user_id, upload_token_staging.status, upload_token_staging.file_name, upload_token_staging.file_size_bytes, upload_token_staging.uploaded_size_bytes, upload_token_staging.created_at, upload_token_staging.updated_at, upload_token_staging.attached_object_type, upload_token_staging.attached_object_id, upload_token_staging.auto_finalize, upload_token_staging.upload_url, upload_token_staging.extra, upload_token_staging.kind, upload_token_staging.from_lookup, upload_token_staging.observed_at, upload_token_staging.digest, upload_token_staging.user_digest
FROM upload_token_staging
WHERE upload_token_staging.partner_id = %(partner_id_1)s::INTEGER
AND upload_token_staging.walk_id = %(walk_id_1)s::BIGINT
AND upload_token_staging.kind != %(kind_2)s::VARCHAR
ORDER BY upload_token_staging.token_id, upload_token_staging.from_lookup DESC, CASE WHEN upload_token_staging.from_lookup THEN upload_token_staging.observed_at END DESC NULLS LAST, upload_token_staging.kind DESC, upload_token_staging.created_at DESC, upload_token_staging.observed_at DESC, upload_token_staging.updated_at DESC NULLS LAST, upload_token_staging.status DESC NULLS LAST, upload_token_staging.uploaded_size_bytes DESC NULLS LAST, upload_token_staging.file_size_bytes DESC NULLS LAST, upload_token_staging.file_name COLLATE "C" DESC NULLS LAST, upload_token_staging.user_id COLLATE "C" DESC NULLS LAST, upload_token_staging.attached_object_id COLLATE "C" DESC NULLS LAST, upload_token_staging.attached_object_type COLLATE "C" DESC NULLS LAST, upload_token_staging.upload_url COLLATE "C" DESC NULLS LAST, upload_token_staging.auto_finalize DESC NULLS LAST) AS resolved
LEFT OUTER JOIN LATERAL (SELECT upload_token.is_listed, upload_token.token_id, upload_token.user_id, upload_token.status, upload_token.file_name, upload_token.file_size_bytes, upload_token.uploaded_size_bytes, upload_token.created_at, upload_token.updated_at, upload_token.attached_object_type, upload_token.attached_object_id, upload_token.extra
FROM upload_token
WHERE upload_token.partner_id = %(partner_id_2)s::INTEGER
AND upload_token.token_id = resolved.token_id
LIMIT %(param_5)s::INTEGER) AS known_row ON true) AS version
WHERE version.change_kind IS NOT NULL
GROUP BY version.change_kind
