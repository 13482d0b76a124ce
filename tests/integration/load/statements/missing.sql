SELECT count(*) AS count_1
FROM (SELECT walked.token_id
FROM (SELECT observation.token_id, bool_or(observation.is_staged) AS is_staged, bool_or(observation.has_outcome) AS has_outcome, bool_or(observation.is_missing) AS is_missing, bool_or(observation.is_rejected) AS is_rejected
FROM (SELECT upload_token_staging.token_id, upload_token_staging.partner_id = %(partner_id_1)s::INTEGER
AND upload_token_staging.walk_id = %(walk_id_1)s::BIGINT AS is_staged, upload_token_staging.partner_id = %(partner_id_1)s::INTEGER
AND upload_token_staging.walk_id = %(walk_id_1)s::BIGINT
AND upload_token_staging.kind != %(kind_1)s::VARCHAR AS has_outcome, upload_token_staging.kind = %(kind_1)s::VARCHAR AS is_missing, false AS is_rejected
FROM upload_token_staging
WHERE upload_token_staging.partner_id = %(partner_id_2)s::INTEGER
AND upload_token_staging.walk_id = %(walk_id_2)s::BIGINT
UNION ALL SELECT rejected_row.token_id, false AS anon_2, false AS anon__1, false AS anon__2, true AS anon_3
FROM rejected_row
WHERE rejected_row.run_id = %(run_id_1)s::BIGINT
AND rejected_row.reason != ALL (CAST(%(param_1)s::TEXT[] AS TEXT[]))
AND rejected_row.token_id IS NOT NULL) AS observation
GROUP BY observation.token_id) AS walked
JOIN LATERAL (SELECT upload_token.partner_id, upload_token.token_id, upload_token.user_id, upload_token.status, upload_token.file_name, upload_token.file_size_bytes, upload_token.uploaded_size_bytes, upload_token.created_at, upload_token.updated_at, upload_token.attached_object_type, upload_token.attached_object_id, upload_token.auto_finalize, upload_token.upload_url, upload_token.extra, upload_token.is_listed, upload_token.version, upload_token.change_kind, upload_token.changed_columns, upload_token.valid_from, upload_token.observed_at, upload_token.last_listed_at, upload_token.absence_confirmed_at, upload_token.run_id, upload_token.digest, upload_token.user_digest, upload_token.first_happened_at, upload_token.first_closed_at, upload_token.status_version, upload_token.status_happened_at, upload_token.status_happened_after, upload_token.status_happened_before, upload_token.earlier_stays, upload_token.went_back
FROM upload_token
WHERE upload_token.partner_id = %(partner_id_3)s::INTEGER
AND upload_token.token_id = walked.token_id
LIMIT %(param_2)s::INTEGER) AS known_row ON true
WHERE known_row.is_listed
AND (walked.is_staged
OR walked.is_rejected)
AND NOT (CAST(%(param_3)s::INT8MULTIRANGE AS INT8MULTIRANGE) @> CAST(floor(EXTRACT(epoch
FROM known_row.created_at)) AS BIGINT))
AND NOT (known_row.status IN (%(status_1_1)s::SMALLINT, %(status_1_2)s::SMALLINT, %(status_1_3)s::SMALLINT)
AND (CAST(%(param_4)s::INT8MULTIRANGE AS INT8MULTIRANGE) @> CAST(floor(EXTRACT(epoch
FROM known_row.created_at)) AS BIGINT)))) AS anon_1
