-- The rows that a published run rejected are kept, or were counted when they were pruned.
select
    run.partner_id,
    run.run_id,
    run.rejected,
    coalesce(kept.rejected, 0) as rejected_kept,
    run.rejected_pruned
from sync_run as run
left join (
    -- A page that was read twice shows the row twice, possibly with other volatile values.
    select
        run_id,
        count(*) as rejected
    from (
        select distinct
            run_id,
            token_id,
            reason,
            created_second
        from rejected_row
        where
            -- These rows were loaded without a value: docs/reference/records.md
            reason !~ '^(user_id|file_name|file_size|uploaded_size|updated_at)_'
            and reason !~ '^(attached_object_type|attached_object_id|auto_finalize|upload_url)_'
            and reason !~ '^(extra_|too_many_unknown_keys$)'
    ) as distinct_row
    group by run_id
) as kept on kept.run_id = run.run_id
where
    run.status = 'succeeded'
    and run.rejected <> coalesce(kept.rejected, 0) + run.rejected_pruned
