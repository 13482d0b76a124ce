-- Each change of status or presence, with the interval in which it must have happened.
select
    partner_id,
    token_id,
    version,
    from_status,
    to_status,
    change_kind,
    happened_at,
    happened_after,
    happened_before,
    valid_from,
    run_id
from {{ source('kaltura', 'upload_token_status_history') }}
