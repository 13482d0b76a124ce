-- A version is valid until the next one begins, and names the run that published the next one.
select
    earlier.partner_id,
    earlier.token_id,
    earlier.version,
    earlier.valid_to,
    later.valid_from as next_valid_from,
    earlier.superseded_by_run_id,
    later.run_id as next_run_id
from upload_token_superseded as earlier
join upload_token_history as later
    on later.partner_id = earlier.partner_id
    and later.token_id = earlier.token_id
    and later.version = earlier.version + 1
where
    earlier.valid_to <> later.valid_from
    or earlier.superseded_by_run_id <> later.run_id
