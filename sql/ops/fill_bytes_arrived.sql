-- Writes the log of bytes that arrived of a warehouse that was published without it.
insert into upload_bytes_arrival_log (
    partner_id,
    run_id,
    is_long,
    utc_day,
    earliest_quarters,
    latest_quarters,
    best_quarters,
    bytes
)
select
    derived.partner_id,
    derived.run_id,
    derived.is_long,
    derived.utc_day,
    derived.earliest_quarters,
    derived.latest_quarters,
    derived.best_quarters,
    derived.bytes
from upload_bytes_arrival as derived
order by derived.run_id, derived.is_long, derived.utc_day
