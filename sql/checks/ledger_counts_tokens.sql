-- Every token that a run read is accounted for: written, unchanged or rejected.
select
    partner_id,
    run_id,
    tokens_read,
    inserted,
    changed,
    relisted,
    unchanged,
    rejected
from sync_run
where
    status = 'succeeded'
    and tokens_read <> inserted + changed + relisted + unchanged + rejected
