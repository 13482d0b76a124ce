-- Days whose outcomes do not add up to the uploads that were started.
select *
from {{ ref('kaltura_upload_days') }}
where started <> succeeded + failed + abandoned + deleted + still_open
