SELECT intervals.is_first, string_agg(int8send(row_within.digest), %(param_1)s) FILTER (WHERE row_within.digest IS NOT NULL
AND (row_within.user_digest IS NOT NULL
OR row_within.user_id IS NULL)) AS anon_1, string_agg(int8send(coalesce(row_within.user_digest, %(coalesce_1)s::INTEGER)), %(param_2)s) FILTER (WHERE row_within.digest IS NOT NULL
AND (row_within.user_digest IS NOT NULL
OR row_within.user_id IS NULL)) AS anon_2, count(*) FILTER (WHERE NOT (row_within.digest IS NOT NULL
AND (row_within.user_digest IS NOT NULL
OR row_within.user_id IS NULL))) AS anon_3
FROM (SELECT to_timestamp(seconds.lower_second) AS lower, to_timestamp(seconds.upper_second) AS upper, seconds.is_first
FROM unnest(CAST(%(param_3)s::BIGINT[] AS BIGINT[]), CAST(%(param_4)s::BIGINT[] AS BIGINT[]), CAST(%(param_5)s::BOOLEAN[] AS BOOLEAN[])) AS seconds(lower_second, upper_second, is_first)) AS intervals
JOIN LATERAL (SELECT upload_token.digest, upload_token.user_digest, upload_token.user_id
FROM upload_token
WHERE upload_token.partner_id = %(partner_id_1)s::INTEGER
AND upload_token.is_listed
AND upload_token.created_at >= intervals.lower
AND upload_token.created_at < intervals.upper
LIMIT ALL OFFSET %(param_6)s::INTEGER) AS row_within ON true
GROUP BY intervals.is_first
