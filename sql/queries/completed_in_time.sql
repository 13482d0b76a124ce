-- How many uploads are completed in time (a service level)?
-- Variables: partner_id, since, within
with upload as (
    select
        upload.seconds_to_complete <= extract(epoch from cast(:'within' as interval)) as in_time,
        -- Without a look at all open uploads nothing is decided.
        coalesce(
            freshness.open_seen_at < upload.created_at + cast(:'within' as interval), true
        ) as too_young,
        date_trunc('week', upload.created_at at time zone kaltura_time_zone()) as week
    from upload_outcome as upload
    inner join sync_freshness as freshness on upload.partner_id = freshness.partner_id
    where
        upload.partner_id = :partner_id
        and upload.created_at >= cast(:'since' as timestamptz)
)

select
    cast(week as date) as week,
    count(*) as started,
    count(*) filter (where in_time and not too_young) as in_time,
    count(*) filter (where in_time is not true and not too_young) as too_late_or_never,
    count(*) filter (where too_young) as undecided,
    round(
        100.0 * count(*) filter (where in_time and not too_young)
        / nullif(count(*) filter (where not too_young), 0),
        1
    ) as percent_in_time
from upload
group by week
order by week
