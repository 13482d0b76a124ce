-- How many tokens were in each status at the end of each day?
-- Variables: partner_id, since, now
select
    day,
    coalesce(sum(tokens) filter (where status = 'PENDING'), 0) as pending,
    coalesce(
        sum(tokens) filter (where status = 'PARTIAL_UPLOAD'), 0
    ) as partial,
    coalesce(sum(tokens) filter (where status = 'FULL_UPLOAD'), 0) as full,
    coalesce(sum(tokens) filter (where status = 'CLOSED'), 0) as closed,
    coalesce(sum(tokens) filter (where status = 'TIMED_OUT'), 0) as timed_out,
    coalesce(sum(tokens) filter (where status = 'DELETED'), 0) as deleted,
    coalesce(sum(tokens) filter (where status = 'ERROR'), 0) as error,
    coalesce(sum(tokens) filter (where status like 'UNKNOWN%'), 0) as unknown,
    coalesce(sum(tokens) filter (where status = 'NOT_LISTED'), 0) as not_listed,
    min(known_at) as known_at,
    make_interval(secs => max(stale_by_seconds)) as stale_by
from upload_token_daily_status
where
    partner_id = :partner_id
    and day >= cast(:'since' as date)
    and day < cast(
        cast(:'now' as timestamptz)
        at time zone kaltura_time_zone() as date
    )
group by day
order by day
