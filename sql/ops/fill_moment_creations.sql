-- Tells created_at of the status moments that were published without it.
update upload_token_status_moment_log as moment
set created_at = version.created_at
from upload_token_history as version
where
    moment.created_at is null
    and version.partner_id = moment.partner_id
    and version.token_id = moment.token_id
    and version.version = moment.version
