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
    cast(first_week as date) as first_week,
    count(*) filter (where weeks_later = 0) as users,
    count(*) filter (where weeks_later = 1) as after_1_week,
    count(*) filter (where weeks_later = 2) as after_2_weeks,
    count(*) filter (where weeks_later = 3) as after_3_weeks,
    count(*) filter (where weeks_later = 4) as after_4_weeks
from since_first
group by first_week
order by first_week
