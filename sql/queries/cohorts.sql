-- Do users come back in the weeks after their first upload?
-- Variables: partner_id, since
with active as (
    select distinct
        user_id,
        date_trunc('week', created_at at time zone kaltura_time_zone()) as week
    from upload_outcome
    where
        partner_id = :partner_id
        and created_at >= cast(:'since' as timestamptz)
        and user_id is not null
),

since_first as (
    select
        user_id,
        min(week) over (partition by user_id) as first_week,
        extract(day from week - min(week) over (partition by user_id)) / 7 as weeks_later
    from active
    where
        not exists (
            select 1 from upload_token as earlier
            where
                earlier.partner_id = :partner_id
                and earlier.user_id = active.user_id
                and earlier.created_at < cast(:'since' as timestamptz)
        )
)

select
    cast(since_first.first_week as date) as first_week,
    count(*) filter (where since_first.weeks_later = 0) as users,
    -- NULL: that week is not over, as far as has been looked.
    case when over.weeks >= 2 then count(*) filter (where since_first.weeks_later = 1) end
    as after_1_week,
    case when over.weeks >= 3 then count(*) filter (where since_first.weeks_later = 2) end
    as after_2_weeks,
    case when over.weeks >= 4 then count(*) filter (where since_first.weeks_later = 3) end
    as after_3_weeks,
    case when over.weeks >= 5 then count(*) filter (where since_first.weeks_later = 4) end
    as after_4_weeks
from since_first
inner join sync_freshness as freshness on freshness.partner_id = :partner_id
cross join lateral (
    select
        extract(
            day from
            freshness.open_seen_at at time zone kaltura_time_zone() - since_first.first_week
        ) / 7 as weeks
) as over
group by since_first.first_week, over.weeks
order by since_first.first_week
