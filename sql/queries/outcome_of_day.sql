-- What became of the uploads of one day?
-- Variables: partner_id, day
select
    size_bucket,
    started,
    succeeded,
    failed,
    abandoned,
    deleted,
    still_open,
    bytes_announced,
    bytes_received
from upload_outcome_daily
where partner_id = :partner_id and day = cast(:'day' as date)
order by size_bucket_order
