-- The counts of a run equal the versions that it wrote (until versions are pruned).
select
    run.partner_id,
    run.run_id,
    run.status,
    run.inserted,
    run.changed,
    run.absent,
    run.relisted,
    written.inserted as versions_inserted,
    written.changed as versions_changed,
    written.absent as versions_absent,
    written.relisted as versions_relisted
from sync_run as run
left join (
    select
        run_id,
        count(*) filter (where change_kind = 'first_seen') as inserted,
        count(*) filter (where change_kind = 'changed') as changed,
        count(*) filter (where change_kind = 'absent') as absent,
        count(*) filter (where change_kind = 'relisted') as relisted
    from upload_token_history
    group by run_id
) as written on written.run_id = run.run_id
left join upload_token_horizon as pruned on pruned.partner_id = run.partner_id
where
    run.status = 'succeeded'
    and (
        run.inserted < written.inserted
        or run.changed < written.changed
        or run.absent < written.absent
        or run.relisted < written.relisted
        or (
            run.inserted + run.changed + run.absent + run.relisted
            > coalesce(
                written.inserted + written.changed + written.absent + written.relisted, 0
            )
            -- valid_to is after the run: versions of runs after the horizon were not pruned.
            and (run.published_at < pruned.horizon) is not true
        )
    )
