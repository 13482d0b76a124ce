-- Tells first_happened_at of the earlier versions that were published without it.
update upload_token_superseded as version_one
set first_happened_at = moment.happened_at
from upload_token_status_moment as moment
where
    version_one.version = 1
    and version_one.first_happened_at is null
    and moment.partner_id = version_one.partner_id
    and moment.token_id = version_one.token_id
    and moment.version = 1
