-- The counts of a run are the versions that it wrote.
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
where
    run.status = 'succeeded'
    and (
        run.inserted <> coalesce(written.inserted, 0)
        or run.changed <> coalesce(written.changed, 0)
        or run.absent <> coalesce(written.absent, 0)
        or run.relisted <> coalesce(written.relisted, 0)
    )
