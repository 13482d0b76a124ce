-- Which uploads failed, when, whose were they, and how far did they get?
-- Variables: partner_id, since
select
    token_id,
    user_id,
    file_name,
    status,
    failed_at,
    failed_after,
    failed_before,
    case
        when file_size_bytes > 0
            then round(100.0 * coalesce(uploaded_size_bytes, 0) / file_size_bytes)
    end as percent
from upload_failure
where
    partner_id = :partner_id
    -- It was published after it failed: so an index finds those since then.
    and valid_from >= cast(:'since' as timestamptz)
    and failed_at >= cast(:'since' as timestamptz)
order by failed_at desc, token_id
