SELECT anon_1.token_id, min(anon_1.created_at) AS min_1
FROM (SELECT anon_2.token_id, anon_2.created_at
FROM (SELECT upload_token_staging.token_id, min(upload_token_staging.created_at) AS created_at, bool_or(upload_token_staging.from_lookup
AND upload_token_staging.walk_id = %(walk_id_1)s::BIGINT) AS looked_up, bool_or(upload_token_staging.from_lookup
AND upload_token_staging.walk_id != %(walk_id_2)s::BIGINT) AS asked, max(upload_token_staging.observed_at) FILTER (WHERE upload_token_staging.kind = %(kind_1)s::VARCHAR) AS missing_at, max(upload_token_staging.observed_at) FILTER (WHERE upload_token_staging.kind = %(kind_2)s::VARCHAR
AND NOT upload_token_staging.from_lookup) AS present_at, min(upload_token_staging.created_at) FILTER (WHERE upload_token_staging.kind = %(kind_2)s::VARCHAR
AND NOT upload_token_staging.from_lookup) AS oldest, max(upload_token_staging.created_at) FILTER (WHERE upload_token_staging.kind = %(kind_2)s::VARCHAR
AND NOT upload_token_staging.from_lookup) AS newest
FROM upload_token_staging
WHERE upload_token_staging.walk_id = %(walk_id_3)s::BIGINT
GROUP BY upload_token_staging.token_id) AS anon_2
LEFT OUTER JOIN upload_token ON upload_token.partner_id = %(partner_id_1)s::INTEGER
AND upload_token.token_id = anon_2.token_id
WHERE NOT anon_2.looked_up
AND (anon_2.missing_at IS NOT NULL
AND (anon_2.present_at IS NULL
OR anon_2.present_at <= anon_2.missing_at)
OR anon_2.oldest != anon_2.newest
OR upload_token.created_at != anon_2.newest
AND upload_token.token_id IS NOT NULL
OR anon_2.asked)
UNION ALL SELECT rejected_row.token_id, to_timestamp(min(rejected_row.created_second)) AS created_at
FROM rejected_row
WHERE rejected_row.run_id = %(run_id_1)s::BIGINT
AND rejected_row.reason = %(reason_1)s::VARCHAR
AND rejected_row.token_id IS NOT NULL
AND (EXISTS (SELECT *
FROM upload_token_staging AS also_staged
WHERE also_staged.walk_id = %(walk_id_4)s::BIGINT
AND also_staged.token_id = rejected_row.token_id))
AND NOT (EXISTS (SELECT *
FROM upload_token_staging AS looked_up
WHERE looked_up.walk_id = %(walk_id_5)s::BIGINT
AND looked_up.token_id = rejected_row.token_id
AND looked_up.from_lookup))
GROUP BY rejected_row.token_id) AS anon_1
WHERE anon_1.token_id > %(token_id_1)s::VARCHAR COLLATE "C"
GROUP BY anon_1.token_id
ORDER BY anon_1.token_id
LIMIT %(param_1)s::INTEGER
