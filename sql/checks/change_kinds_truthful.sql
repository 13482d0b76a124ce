-- A token becomes absent or changes only while listed, and is relisted only after an absence.
select
    later.partner_id,
    later.token_id,
    later.version,
    later.change_kind,
    earlier.is_listed as was_listed
from upload_token_superseded as earlier
join upload_token_history as later
    on later.partner_id = earlier.partner_id
    and later.token_id = earlier.token_id
    and later.version = earlier.version + 1
where
    earlier.is_listed <> (later.change_kind in ('changed', 'absent'))
