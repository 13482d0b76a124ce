WITH resolved AS (SELECT DISTINCT ON (upload_token_staging.token_id) upload_token_staging.walk_id, upload_token_staging.partner_id, upload_token_staging.token_id, upload_token_staging.user_id, upload_token_staging.status, upload_token_staging.file_name, upload_token_staging.file_size_bytes, upload_token_staging.uploaded_size_bytes, upload_token_staging.created_at, upload_token_staging.updated_at, upload_token_staging.attached_object_type, upload_token_staging.attached_object_id, upload_token_staging.auto_finalize, upload_token_staging.upload_url, upload_token_staging.extra, upload_token_staging.kind, upload_token_staging.from_lookup, upload_token_staging.observed_at, upload_token_staging.digest, upload_token_staging.user_digest
FROM upload_token_staging
WHERE upload_token_staging.partner_id = %(partner_id_4)s::INTEGER
AND upload_token_staging.walk_id = %(walk_id_1)s::BIGINT
AND upload_token_staging.kind != %(kind_3)s::VARCHAR
ORDER BY upload_token_staging.token_id, upload_token_staging.from_lookup DESC, CASE WHEN upload_token_staging.from_lookup THEN upload_token_staging.observed_at END DESC NULLS LAST, upload_token_staging.kind DESC, upload_token_staging.created_at DESC, upload_token_staging.observed_at DESC, upload_token_staging.updated_at DESC NULLS LAST, upload_token_staging.status DESC NULLS LAST, upload_token_staging.uploaded_size_bytes DESC NULLS LAST, upload_token_staging.file_size_bytes DESC NULLS LAST, upload_token_staging.file_name COLLATE "C" DESC NULLS LAST, upload_token_staging.user_id COLLATE "C" DESC NULLS LAST, upload_token_staging.attached_object_id COLLATE "C" DESC NULLS LAST, upload_token_staging.attached_object_type COLLATE "C" DESC NULLS LAST, upload_token_staging.upload_url COLLATE "C" DESC NULLS LAST, upload_token_staging.auto_finalize DESC NULLS LAST), written AS (INSERT INTO upload_token (partner_id, token_id, user_id, status, file_name, file_size_bytes, uploaded_size_bytes, created_at, updated_at, attached_object_type, attached_object_id, auto_finalize, upload_url, extra, is_listed, version, change_kind, changed_columns, observed_at, last_listed_at, absence_confirmed_at, digest, user_digest, valid_from, run_id) SELECT new_version.partner_id, new_version.token_id, new_version.user_id, new_version.status, new_version.file_name, new_version.file_size_bytes, new_version.uploaded_size_bytes, new_version.created_at, new_version.updated_at, new_version.attached_object_type, new_version.attached_object_id, new_version.auto_finalize, new_version.upload_url, new_version.extra, new_version.is_listed, new_version.version, new_version.change_kind, new_version.changed_columns, new_version.observed_at, new_version.last_listed_at, new_version.absence_confirmed_at, new_version.digest, new_version.user_digest, CAST(%(param_1)s::TIMESTAMP WITH TIME ZONE AS TIMESTAMP WITH TIME ZONE) AS valid_from, CAST(%(param_2)s::BIGINT AS BIGINT) AS run_id
FROM (SELECT resolved.partner_id, resolved.token_id, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.user_id ELSE coalesce(resolved.user_id, known_row.user_id) END AS user_id, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.status ELSE resolved.status END AS status, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.file_name ELSE resolved.file_name END AS file_name, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.file_size_bytes ELSE resolved.file_size_bytes END AS file_size_bytes, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.uploaded_size_bytes ELSE resolved.uploaded_size_bytes END AS uploaded_size_bytes, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.created_at ELSE resolved.created_at END AS created_at, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.updated_at ELSE resolved.updated_at END AS updated_at, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.attached_object_type ELSE resolved.attached_object_type END AS attached_object_type, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.attached_object_id ELSE resolved.attached_object_id END AS attached_object_id, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.auto_finalize ELSE coalesce(resolved.auto_finalize, known_row.auto_finalize) END AS auto_finalize, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.upload_url ELSE coalesce(resolved.upload_url, known_row.upload_url) END AS upload_url, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.extra ELSE resolved.extra END AS extra, resolved.kind != %(kind_1)s::VARCHAR AS is_listed, coalesce(known_row.version, %(coalesce_1)s::INTEGER) + %(coalesce_2)s::INTEGER AS version, CASE WHEN (resolved.kind = %(kind_2)s::VARCHAR) THEN CASE WHEN known_row.is_listed THEN %(param_3)s::VARCHAR END WHEN (known_row.token_id IS NULL) THEN %(param_4)s::VARCHAR WHEN (known_row.is_listed IS false) THEN %(param_5)s::VARCHAR WHEN (resolved.user_id IS NOT NULL
AND resolved.user_id IS DISTINCT FROM known_row.user_id
OR resolved.status IS DISTINCT FROM known_row.status
OR resolved.file_name IS DISTINCT FROM known_row.file_name
OR resolved.file_size_bytes IS DISTINCT FROM known_row.file_size_bytes
OR resolved.uploaded_size_bytes IS DISTINCT FROM known_row.uploaded_size_bytes
OR resolved.created_at IS DISTINCT FROM known_row.created_at
OR resolved.updated_at IS DISTINCT FROM known_row.updated_at
OR resolved.attached_object_type IS DISTINCT FROM known_row.attached_object_type
OR resolved.attached_object_id IS DISTINCT FROM known_row.attached_object_id
OR resolved.extra IS DISTINCT FROM known_row.extra) THEN %(param_6)s::VARCHAR END AS change_kind, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN ARRAY[%(param_7)s::VARCHAR] WHEN (known_row.token_id IS NULL) THEN NULL WHEN (known_row.is_listed IS false) THEN array_cat(ARRAY[%(param_7)s::VARCHAR], array_remove(ARRAY[CASE WHEN (resolved.user_id IS NOT NULL
AND resolved.user_id IS DISTINCT FROM known_row.user_id) THEN %(param_8)s::VARCHAR END, CASE WHEN (resolved.status IS DISTINCT FROM known_row.status) THEN %(param_9)s::VARCHAR END, CASE WHEN (resolved.file_name IS DISTINCT FROM known_row.file_name) THEN %(param_10)s::VARCHAR END, CASE WHEN (resolved.file_size_bytes IS DISTINCT FROM known_row.file_size_bytes) THEN %(param_11)s::VARCHAR END, CASE WHEN (resolved.uploaded_size_bytes IS DISTINCT FROM known_row.uploaded_size_bytes) THEN %(param_12)s::VARCHAR END, CASE WHEN (resolved.created_at IS DISTINCT FROM known_row.created_at) THEN %(param_13)s::VARCHAR END, CASE WHEN (resolved.updated_at IS DISTINCT FROM known_row.updated_at) THEN %(param_14)s::VARCHAR END, CASE WHEN (resolved.attached_object_type IS DISTINCT FROM known_row.attached_object_type) THEN %(param_15)s::VARCHAR END, CASE WHEN (resolved.attached_object_id IS DISTINCT FROM known_row.attached_object_id) THEN %(param_16)s::VARCHAR END, CASE WHEN (resolved.extra IS DISTINCT FROM known_row.extra) THEN %(param_17)s::VARCHAR END], NULL)) ELSE array_remove(ARRAY[CASE WHEN (resolved.user_id IS NOT NULL
AND resolved.user_id IS DISTINCT FROM known_row.user_id) THEN %(param_18)s::VARCHAR END, CASE WHEN (resolved.status IS DISTINCT FROM known_row.status) THEN %(param_19)s::VARCHAR END, CASE WHEN (resolved.file_name IS DISTINCT FROM known_row.file_name) THEN %(param_20)s::VARCHAR END, CASE WHEN (resolved.file_size_bytes IS DISTINCT FROM known_row.file_size_bytes) THEN %(param_21)s::VARCHAR END, CASE WHEN (resolved.uploaded_size_bytes IS DISTINCT FROM known_row.uploaded_size_bytes) THEN %(param_22)s::VARCHAR END, CASE WHEN (resolved.created_at IS DISTINCT FROM known_row.created_at) THEN %(param_23)s::VARCHAR END, CASE WHEN (resolved.updated_at IS DISTINCT FROM known_row.updated_at) THEN %(param_24)s::VARCHAR END, CASE WHEN (resolved.attached_object_type IS DISTINCT FROM known_row.attached_object_type) THEN %(param_25)s::VARCHAR END, CASE WHEN (resolved.attached_object_id IS DISTINCT FROM known_row.attached_object_id) THEN %(param_26)s::VARCHAR END, CASE WHEN (resolved.extra IS DISTINCT FROM known_row.extra) THEN %(param_27)s::VARCHAR END], NULL) END AS changed_columns, resolved.observed_at, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN coalesce(nullif(greatest((SELECT first_run.started_at
FROM sync_run
JOIN sync_run AS first_run ON first_run.run_id = sync_run.walk_id
WHERE sync_run.run_id = known_row.run_id
AND sync_run.published_at IS NOT NULL), CASE WHEN (EXISTS (SELECT *
FROM unobserved_token
WHERE unobserved_token.partner_id = %(partner_id_1)s::INTEGER
AND unobserved_token.token_id = known_row.token_id)) THEN (SELECT first_run.started_at
FROM sync_run AS published
JOIN sync_run AS first_run ON first_run.run_id = published.walk_id
WHERE published.partner_id = %(partner_id_2)s::INTEGER
AND published.published_at IS NOT NULL
AND ((published.coverage @> CAST(floor(EXTRACT(epoch
FROM known_row.created_at)) AS BIGINT))
OR known_row.is_listed
AND known_row.status IN (%(status_1_1)s::SMALLINT, %(status_1_2)s::SMALLINT, %(status_1_3)s::SMALLINT)
AND (published.open_coverage @> CAST(floor(EXTRACT(epoch
FROM known_row.created_at)) AS BIGINT)))
AND NOT (EXISTS (SELECT *
FROM unobserved_token AS unobserved
WHERE unobserved.partner_id = %(partner_id_3)s::INTEGER
AND unobserved.token_id = known_row.token_id
AND unobserved.run_id = published.run_id))
ORDER BY published.published_at DESC
LIMIT %(param_28)s::INTEGER) ELSE CASE WHEN (known_row.is_listed
AND known_row.status IN (%(status_1_1)s::SMALLINT, %(status_1_2)s::SMALLINT, %(status_1_3)s::SMALLINT)) THEN (CAST(%(param_29)s::TIMESTAMP WITH TIME ZONE[] AS TIMESTAMP WITH TIME ZONE[]))[width_bucket(CAST(floor(EXTRACT(epoch
FROM known_row.created_at)) AS BIGINT), CAST(%(param_30)s::BIGINT[] AS BIGINT[]))] ELSE (CAST(%(param_31)s::TIMESTAMP WITH TIME ZONE[] AS TIMESTAMP WITH TIME ZONE[]))[width_bucket(CAST(floor(EXTRACT(epoch
FROM known_row.created_at)) AS BIGINT), CAST(%(param_32)s::BIGINT[] AS BIGINT[]))] END END), CAST(%(param_33)s::TIMESTAMP WITH TIME ZONE AS TIMESTAMP WITH TIME ZONE)), known_row.observed_at) END AS last_listed_at, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN resolved.observed_at END AS absence_confirmed_at, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.digest ELSE resolved.digest END AS digest, CASE WHEN (resolved.kind = %(kind_1)s::VARCHAR) THEN known_row.user_digest ELSE CASE WHEN (resolved.user_id IS NULL) THEN known_row.user_digest ELSE resolved.user_digest END END AS user_digest
FROM resolved
LEFT OUTER JOIN LATERAL (SELECT upload_token.partner_id, upload_token.token_id, upload_token.user_id, upload_token.status, upload_token.file_name, upload_token.file_size_bytes, upload_token.uploaded_size_bytes, upload_token.created_at, upload_token.updated_at, upload_token.attached_object_type, upload_token.attached_object_id, upload_token.auto_finalize, upload_token.upload_url, upload_token.extra, upload_token.is_listed, upload_token.version, upload_token.change_kind, upload_token.changed_columns, upload_token.valid_from, upload_token.observed_at, upload_token.last_listed_at, upload_token.absence_confirmed_at, upload_token.run_id, upload_token.digest, upload_token.user_digest
FROM upload_token
WHERE upload_token.partner_id = %(partner_id_5)s::INTEGER
AND upload_token.token_id = resolved.token_id
LIMIT %(param_34)s::INTEGER) AS known_row ON true
WHERE CASE WHEN (resolved.kind = %(kind_2)s::VARCHAR) THEN CASE WHEN known_row.is_listed THEN %(param_3)s::VARCHAR END WHEN (known_row.token_id IS NULL) THEN %(param_4)s::VARCHAR WHEN (known_row.is_listed IS false) THEN %(param_5)s::VARCHAR WHEN (resolved.user_id IS NOT NULL
AND resolved.user_id IS DISTINCT FROM known_row.user_id
OR resolved.status IS DISTINCT FROM known_row.status
OR resolved.file_name IS DISTINCT FROM known_row.file_name
OR resolved.file_size_bytes IS DISTINCT FROM known_row.file_size_bytes
OR resolved.uploaded_size_bytes IS DISTINCT FROM known_row.uploaded_size_bytes
OR resolved.created_at IS DISTINCT FROM known_row.created_at
OR resolved.updated_at IS DISTINCT FROM known_row.updated_at
OR resolved.attached_object_type IS DISTINCT FROM known_row.attached_object_type
OR resolved.attached_object_id IS DISTINCT FROM known_row.attached_object_id
OR resolved.extra IS DISTINCT FROM known_row.extra) THEN %(param_6)s::VARCHAR END IS NOT NULL) AS new_version
ORDER BY new_version.created_at, new_version.token_id
ON CONFLICT (partner_id, token_id) DO UPDATE
SET user_id = excluded.user_id, status = excluded.status, file_name = excluded.file_name, file_size_bytes = excluded.file_size_bytes, uploaded_size_bytes = excluded.uploaded_size_bytes, created_at = excluded.created_at, updated_at = excluded.updated_at, attached_object_type = excluded.attached_object_type, attached_object_id = excluded.attached_object_id, auto_finalize = excluded.auto_finalize, upload_url = excluded.upload_url, extra = excluded.extra, is_listed = excluded.is_listed, version = excluded.version, change_kind = excluded.change_kind, changed_columns = excluded.changed_columns, valid_from = excluded.valid_from, observed_at = excluded.observed_at, last_listed_at = excluded.last_listed_at, absence_confirmed_at = excluded.absence_confirmed_at, run_id = excluded.run_id, digest = excluded.digest, user_digest = excluded.user_digest
WHERE upload_token.version = excluded.version - %(version_1)s::INTEGER
RETURNING upload_token.change_kind) SELECT written.change_kind, count(*) AS count_1
FROM written
GROUP BY written.change_kind
