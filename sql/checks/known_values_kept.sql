-- A known user id, upload URL or auto_finalize is not removed by a later version.
select
    later.partner_id,
    later.token_id,
    later.version,
    later.run_id
from upload_token_superseded as earlier
join upload_token_history as later
    on later.partner_id = earlier.partner_id
    and later.token_id = earlier.token_id
    and later.version = earlier.version + 1
where
    (earlier.user_id is not null and later.user_id is null)
    or (earlier.upload_url is not null and later.upload_url is null)
    or (earlier.auto_finalize is not null and later.auto_finalize is null)
