-- A published run covered what its mode requires; what it could not read is a recorded hole.
with settled as (
    select
        run.partner_id,
        run.run_id,
        coalesce(run.overrides ->> 'replayed_mode', run.mode) as mode,
        run.range_from,
        run.range_to,
        run.coverage,
        run.open_coverage,
        run.coverage + coalesce(hole.seconds, '{}') as seconds,
        run.open_coverage + coalesce(hole.open_seconds, '{}') as open_seconds
    from sync_run as run
    cross join lateral (
        select
            range_agg(cast(hole ->> 'span' as int8range))
            filter (where not hole @> '{"open_only": true}') as seconds,
            range_agg(cast(hole ->> 'span' as int8range))
            filter (where hole @> '{"open_only": true}') as open_seconds
        from jsonb_array_elements(run.holes) as hole
        where hole ->> 'reason' in ('unreadable', 'tie_group')
    ) as hole
    where run.status = 'succeeded'
)

select
    partner_id,
    run_id,
    mode,
    cast(coverage as text) as coverage,
    cast(open_coverage as text) as open_coverage,
    cast(seconds as text) as coverage_and_holes
from settled
where
    case mode
        when 'full' then seconds <> '{(,)}'
        -- All of the newest tokens, and of the others those that were open.
        when 'incremental' then not upper_inf(seconds) or seconds + open_seconds <> '{(,)}'
        when 'backfill' then not seconds @> int8range(
            cast(floor(extract(epoch from range_from)) as bigint),
            cast(floor(extract(epoch from range_to)) as bigint),
            '[]'
        ) and (range_from is not null or range_to is not null) -- otherwise by ids
        else true -- a replay that does not tell what it replayed
    end
