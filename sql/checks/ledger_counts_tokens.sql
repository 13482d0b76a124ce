-- Every token that a run read is counted as written, unchanged or rejected, and was on a page.
select
    partner_id,
    run_id,
    rows_read,
    tokens_read,
    inserted,
    changed,
    relisted,
    unchanged,
    rejected
from sync_run
where
    status = 'succeeded'
    and (
        tokens_read <> inserted + changed + relisted + unchanged + rejected
        or rows_read < tokens_read
    )
