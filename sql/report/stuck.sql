-- Open uploads without progress for a day or more, the last to become stuck first, and how many there are.
--
-- is_new: not yet stuck as of since_seen_at, when the complete run before the last one began.
select
    token_id,
    user_id,
    file_name,
    status,
    created_at,
    last_moved_at,
    stuck_for,
    file_size_bytes,
    uploaded_size_bytes,
    percent_received,
    coalesce(
        last_moved_at > cast(%(since_seen_at)s as timestamptz) - interval '24 hours', false
    ) as is_new,
    count(*) over () as total,
    count(*) filter (where stuck_for > interval '168 hours') over () as over_a_week,
    count(*) filter (where stuck_for > interval '720 hours') over () as over_a_month,
    count(*) filter (where stuck_for > interval '8760 hours') over () as over_a_year,
    min(last_moved_at) over () as oldest_moved_at
from stuck_upload
where partner_id = %(partner_id)s
order by last_moved_at desc, token_id
limit %(rows)s;
