-- What became of the uploads, by the day on which they were created and by size.
select
    partner_id,
    day,
    size_bucket,
    size_bucket_order,
    started,
    succeeded,
    failed,
    abandoned,
    deleted,
    still_open,
    bytes_announced,
    bytes_received,
    p50_seconds_to_complete,
    p95_seconds_to_complete,
    is_mature,
    time_zone
from {{ source('kaltura', 'upload_outcome_daily') }}
