-- A published run covered what its mode promises; what it could not read is a stated hole.
with settled as (
    select
        run.partner_id,
        run.run_id,
        run.mode,
        run.range_from,
        run.range_to,
        run.coverage,
        run.coverage + coalesce(
            (
                select range_agg(cast(hole ->> 'span' as int8range))
                from jsonb_array_elements(run.holes) as hole
                where hole ->> 'reason' = 'unreadable'
            ),
            '{}'
        ) as seconds
    from sync_run as run
    where run.status = 'succeeded'
)

select
    partner_id,
    run_id,
    mode,
    cast(coverage as text) as coverage,
    cast(seconds as text) as coverage_and_holes
from settled
where
    case mode
        when 'full' then seconds <> '{(,)}'
        when 'incremental' then not upper_inf(seconds)
        when 'backfill' then not seconds @> int8range(
            cast(floor(extract(epoch from range_from)) as bigint),
            cast(floor(extract(epoch from range_to)) as bigint),
            '[]'
        ) and (range_from is not null or range_to is not null) -- else by ids
        else false
    end
