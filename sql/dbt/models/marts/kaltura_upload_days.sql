-- One row for each account and day with uploads.
--
-- What became of them, what arrived, and whether the night read everything.
with outcomes as (
    select
        partner_id,
        day,
        time_zone,
        sum(started) as started,
        sum(succeeded) as succeeded,
        sum(failed) as failed,
        sum(abandoned) as abandoned,
        sum(deleted) as deleted,
        sum(still_open) as still_open,
        sum(bytes_received) as bytes_received,
        bool_and(is_mature) as is_mature
    from {{ ref('stg_kaltura__daily_outcomes') }}
    group by partner_id, day, time_zone
)

select
    outcomes.partner_id,
    outcomes.day,
    outcomes.time_zone,
    outcomes.started,
    outcomes.succeeded,
    outcomes.failed,
    outcomes.abandoned,
    outcomes.deleted,
    outcomes.still_open,
    outcomes.succeeded / nullif(outcomes.started - outcomes.still_open, 0) as succeeded_ratio,
    outcomes.bytes_received,
    arrived.bytes_arrived,
    arrived.at_least_bytes,
    arrived.at_most_bytes,
    outcomes.is_mature,
    nights.outcome as night
from outcomes
left join {{ ref('stg_kaltura__daily_bytes') }} as arrived
    on arrived.partner_id = outcomes.partner_id and arrived.day = outcomes.day
left join {{ ref('stg_kaltura__nights') }} as nights
    on nights.partner_id = outcomes.partner_id and nights.day = outcomes.day
