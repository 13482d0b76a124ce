WITH batch AS (SELECT anon_1.ordinal, anon_1.token_id, anon_1.user_id, anon_1.status, anon_1.file_name, anon_1.file_size_bytes, anon_1.uploaded_size_bytes, anon_1.created_at, anon_1.updated_at, anon_1.attached_object_type, anon_1.attached_object_id, anon_1.extra
FROM json_to_recordset(CAST(%(batch_rows)s::VARCHAR AS JSON)) AS anon_1(ordinal INTEGER, token_id TEXT COLLATE "C", user_id TEXT COLLATE "C", status SMALLINT, file_name TEXT COLLATE "C", file_size_bytes BIGINT, uploaded_size_bytes BIGINT, created_at TIMESTAMP WITH TIME ZONE, updated_at TIMESTAMP WITH TIME ZONE, attached_object_type TEXT COLLATE "C", attached_object_id TEXT COLLATE "C", extra JSONB)), known AS materialized (SELECT row_within.token_id, row_within.user_id, row_within.status, row_within.file_name, row_within.file_size_bytes, row_within.uploaded_size_bytes, row_within.created_at, row_within.updated_at, row_within.attached_object_type, row_within.attached_object_id, row_within.extra
FROM (SELECT to_timestamp(seconds.lower_second) AS lower, to_timestamp(seconds.upper_second) AS upper, seconds.is_first
FROM unnest(CAST(%(param_1)s::BIGINT[] AS BIGINT[]), CAST(%(param_2)s::BIGINT[] AS BIGINT[]), CAST(%(param_3)s::BOOLEAN[] AS BOOLEAN[])) AS seconds(lower_second, upper_second, is_first)) AS intervals
JOIN LATERAL (SELECT upload_token.token_id, upload_token.user_id, upload_token.status, upload_token.file_name, upload_token.file_size_bytes, upload_token.uploaded_size_bytes, upload_token.created_at, upload_token.updated_at, upload_token.attached_object_type, upload_token.attached_object_id, upload_token.extra
FROM upload_token
WHERE upload_token.partner_id = %(partner_id_1)s::INTEGER
AND upload_token.is_listed
AND (upload_token.digest = ANY (CAST(%(param_4)s::BIGINT[] AS BIGINT[]))
OR NOT (upload_token.digest IS NOT NULL
AND (upload_token.user_digest IS NOT NULL
OR upload_token.user_id IS NULL)))
AND upload_token.created_at >= intervals.lower
AND upload_token.created_at < intervals.upper
LIMIT ALL OFFSET %(param_5)s::INTEGER) AS row_within ON true) SELECT unequal.ordinal, known_row.is_listed
AND known_row.created_at > unequal.created_at AS is_older, CAST(NULL AS TEXT) COLLATE "C" AS token_id, CAST(NULL AS TIMESTAMP WITH TIME ZONE) AS created_at
FROM (SELECT batch.ordinal, batch.token_id, batch.user_id, batch.status, batch.file_name, batch.file_size_bytes, batch.uploaded_size_bytes, batch.created_at, batch.updated_at, batch.attached_object_type, batch.attached_object_id, batch.extra
FROM batch
WHERE NOT (EXISTS (SELECT *
FROM known
WHERE known.token_id = batch.token_id
AND NOT (batch.user_id IS NOT NULL
AND batch.user_id IS DISTINCT FROM known.user_id
OR batch.status IS DISTINCT FROM known.status
OR batch.file_name IS DISTINCT FROM known.file_name
OR batch.file_size_bytes IS DISTINCT FROM known.file_size_bytes
OR batch.uploaded_size_bytes IS DISTINCT FROM known.uploaded_size_bytes
OR batch.created_at IS DISTINCT FROM known.created_at
OR batch.updated_at IS DISTINCT FROM known.updated_at
OR batch.attached_object_type IS DISTINCT FROM known.attached_object_type
OR batch.attached_object_id IS DISTINCT FROM known.attached_object_id
OR batch.extra IS DISTINCT FROM known.extra)))) AS unequal
LEFT OUTER JOIN LATERAL (SELECT upload_token.is_listed, upload_token.token_id, upload_token.user_id, upload_token.status, upload_token.file_name, upload_token.file_size_bytes, upload_token.uploaded_size_bytes, upload_token.created_at, upload_token.updated_at, upload_token.attached_object_type, upload_token.attached_object_id, upload_token.extra
FROM upload_token
WHERE upload_token.partner_id = %(partner_id_2)s::INTEGER
AND upload_token.token_id = unequal.token_id
LIMIT %(param_6)s::INTEGER) AS known_row ON true
WHERE known_row.token_id IS NULL
OR known_row.is_listed IS false
OR unequal.user_id IS NOT NULL
AND unequal.user_id IS DISTINCT FROM known_row.user_id
OR unequal.status IS DISTINCT FROM known_row.status
OR unequal.file_name IS DISTINCT FROM known_row.file_name
OR unequal.file_size_bytes IS DISTINCT FROM known_row.file_size_bytes
OR unequal.uploaded_size_bytes IS DISTINCT FROM known_row.uploaded_size_bytes
OR unequal.created_at IS DISTINCT FROM known_row.created_at
OR unequal.updated_at IS DISTINCT FROM known_row.updated_at
OR unequal.attached_object_type IS DISTINCT FROM known_row.attached_object_type
OR unequal.attached_object_id IS DISTINCT FROM known_row.attached_object_id
OR unequal.extra IS DISTINCT FROM known_row.extra
UNION ALL SELECT batch.ordinal, known_row.is_listed
AND known_row.created_at > batch.created_at AS is_older, CAST(NULL AS TEXT) COLLATE "C" AS token_id, CAST(NULL AS TIMESTAMP WITH TIME ZONE) AS created_at
FROM batch
LEFT OUTER JOIN LATERAL (SELECT upload_token.is_listed, upload_token.created_at
FROM upload_token
WHERE upload_token.partner_id = %(partner_id_3)s::INTEGER
AND upload_token.token_id = batch.token_id
LIMIT %(param_7)s::INTEGER) AS known_row ON true
WHERE batch.token_id = ANY (CAST(%(param_8)s::TEXT[] COLLATE "C" AS TEXT[]) COLLATE "C")
UNION ALL SELECT CAST(NULL AS INTEGER) AS anon_2, CAST(NULL AS BOOLEAN) AS anon__1, known.token_id, known.created_at
FROM known
WHERE (EXISTS (SELECT *
FROM (SELECT to_timestamp(seconds.lower_second) AS lower, to_timestamp(seconds.upper_second) AS upper, seconds.is_first
FROM unnest(CAST(%(param_9)s::BIGINT[] AS BIGINT[]), CAST(%(param_10)s::BIGINT[] AS BIGINT[]), CAST(%(param_11)s::BOOLEAN[] AS BOOLEAN[])) AS seconds(lower_second, upper_second, is_first)) AS intervals
WHERE known.created_at >= intervals.lower
AND known.created_at < intervals.upper))
AND NOT (EXISTS (SELECT *
FROM batch
WHERE known.token_id = batch.token_id
AND known.created_at <= batch.created_at))
AND known.token_id != ALL (CAST(%(param_12)s::TEXT[] COLLATE "C" AS TEXT[]) COLLATE "C")
