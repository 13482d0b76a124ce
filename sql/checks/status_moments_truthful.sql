-- What is told of each change of status is what the versions and the ledger tell.
select
    coalesce(derived.partner_id, told.partner_id) as partner_id,
    coalesce(derived.token_id, told.token_id) as token_id,
    coalesce(derived.version, told.version) as version,
    derived.happened_at as derived_happened_at,
    told.happened_at
from upload_token_status_moment as derived
full join upload_token_status_history as told
    on
        told.partner_id = derived.partner_id
        and told.token_id = derived.token_id
        and told.version = derived.version
left join upload_token_status_moment_log as logged
    on
        logged.partner_id = told.partner_id
        and logged.token_id = told.token_id
        and logged.version = told.version
where
    derived.token_id is null
    or told.token_id is null
    or (derived.to_status, derived.change_kind, derived.valid_from, derived.run_id)
    is distinct from (told.to_status, told.change_kind, told.valid_from, told.run_id)
    or derived.to_status_code is distinct from told.to_status_code
    or (
        -- What was told with a version that has been pruned since cannot be derived any more.
        (derived.version = 1 or derived.from_status is not null)
        and (
            derived.from_status,
            derived.from_status_code,
            -- Not before the change before, whose moment status_since_truthful checks.
            least(greatest(derived.happened_at, logged.from_happened_at), derived.happened_before),
            derived.happened_after,
            derived.happened_before
        ) is distinct from (
            told.from_status,
            told.from_status_code,
            told.happened_at,
            told.happened_after,
            told.happened_before
        )
    )
