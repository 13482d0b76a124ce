-- What was stuck at a given run, and what became of it?
-- Variables: partner_id, run_id
with asked as (
    select published_at
    from sync_run
    where
        partner_id = :partner_id
        and run_id = :run_id
        and published_at is not null
),

-- The last look at all open tokens that there was when it was published.
look as (
    select
        asked.published_at,
        (
            select walk.started_at
            from sync_run as run
            inner join sync_run as walk
                on
                    walk.partner_id = run.partner_id
                    and run.walk_id = walk.run_id
            where
                run.partner_id = :partner_id
                and run.published_at <= asked.published_at
                -- A case, because an equality of ranges is taken to be rare.
                and case
                    when
                        run.coverage + run.open_coverage
                        + sync_tolerated_holes(run.holes, true) = '{(,)}'
                        then true
                end
            order by run.published_at desc
            limit 1
        ) as known_at
    from asked
)

select
    status.name as status_then,
    count(*) as stuck,
    count(*) filter (where upload.outcome = 'succeeded') as succeeded,
    count(*) filter (where upload.outcome = 'failed') as failed,
    count(*) filter (where upload.outcome = 'abandoned') as abandoned,
    count(*) filter (where upload.outcome = 'deleted') as deleted,
    count(*) filter (where upload.outcome = 'still_open') as still_open,
    -- False: versions of then were pruned, so uploads are missing.
    not exists (
        select 1 from upload_token_horizon as pruned
        where
            pruned.partner_id = :partner_id
            and pruned.horizon > min(look.published_at)
    ) as is_whole
from look
cross join lateral upload_token_as_of(look.published_at) as known
inner join upload_token_status as status on known.status = status.code
inner join upload_outcome as upload
    on
        known.partner_id = upload.partner_id
        and known.token_id = upload.token_id
where
    known.partner_id = :partner_id
    and known.is_listed
    and known.status in (0, 1, 2)
    and greatest(known.created_at, known.updated_at)
    <= look.known_at - interval '24 hours'
group by status.code, status.name
order by status.code
