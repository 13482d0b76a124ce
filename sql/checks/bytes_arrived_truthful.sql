-- What was told at each publication of the bytes that arrived is what its versions tell.
select
    coalesce(derived.partner_id, log.partner_id) as partner_id,
    coalesce(derived.run_id, log.run_id) as run_id,
    coalesce(derived.utc_day, log.utc_day) as utc_day,
    derived.earliest_quarters as expected_earliest,
    log.earliest_quarters as found_earliest,
    derived.latest_quarters as expected_latest,
    log.latest_quarters as found_latest,
    derived.best_quarters as expected_best,
    log.best_quarters as found_best,
    derived.bytes as expected,
    log.bytes as found
from upload_bytes_arrival as derived
full join upload_bytes_arrival_log as log
    on
        log.partner_id = derived.partner_id
        and log.run_id = derived.run_id
        and log.is_long = derived.is_long
        and log.utc_day = derived.utc_day
left join sync_run as run on run.run_id = coalesce(derived.run_id, log.run_id)
left join upload_token_horizon as pruned
    on pruned.partner_id = coalesce(derived.partner_id, log.partner_id)
where
    (derived.earliest_quarters, derived.latest_quarters, derived.best_quarters, derived.bytes)
    is distinct from (log.earliest_quarters, log.latest_quarters, log.best_quarters, log.bytes)
    -- What earlier runs told of versions that were pruned cannot be derived any more.
    and coalesce(run.published_at >= pruned.horizon, true)
