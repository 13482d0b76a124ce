-- Bytes that arrived on each day: the best estimate, at least and at most.
select
    partner_id,
    day,
    bytes as bytes_arrived,
    at_least_bytes,
    at_most_bytes,
    time_zone,
    is_mature
from {{ source('kaltura', 'upload_bytes_daily') }}
