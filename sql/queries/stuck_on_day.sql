-- What was stuck last Tuesday (or on any day), and what became of it?
-- Variables: partner_id, day
with asked as (
    select cast(cast(:'day' as date) + 1 as timestamp) at time zone kaltura_time_zone() as day_end
),

-- The last look at all open tokens that the warehouse had at the end of the day.
look as (
    select
        asked.day_end,
        (
            select walk.started_at
            from sync_run as run
            inner join sync_run as walk
                on walk.partner_id = run.partner_id and run.walk_id = walk.run_id
            where
                run.partner_id = :partner_id
                and run.published_at <= asked.day_end
                -- A case, because an equality of ranges is taken to be rare.
                and case
                    when
                        run.coverage + run.open_coverage + sync_tolerated_holes(run.holes, true)
                        = '{(,)}'
                        then true
                end
            order by run.published_at desc
            limit 1
        ) as known_at,
        -- False: versions of then were pruned, so uploads are missing.
        not exists (
            select 1 from upload_token_horizon as pruned
            where pruned.partner_id = :partner_id and pruned.horizon > asked.day_end
        ) as is_whole
    from asked
)

select
    known.token_id,
    known.user_id,
    status.name as status_then,
    greatest(known.created_at, known.updated_at) as last_moved_at,
    look.known_at - greatest(known.created_at, known.updated_at) as stuck_for,
    case
        when known.file_size_bytes > 0
            then round(
                100.0 * coalesce(known.uploaded_size_bytes, 0) / known.file_size_bytes
            )
    end as percent,
    upload.outcome as became,
    look.known_at,
    look.day_end - look.known_at as stale_by,
    look.is_whole
from look
cross join lateral upload_token_as_of(look.day_end) as known
inner join upload_token_status as status on known.status = status.code
inner join upload_outcome as upload
    on known.partner_id = upload.partner_id and known.token_id = upload.token_id
where
    known.partner_id = :partner_id
    and known.is_listed
    and known.status in (0, 1, 2)
    and greatest(known.created_at, known.updated_at) <= look.known_at - interval '24 hours'
order by last_moved_at, known.token_id
