-- No run marked more tokens absent than the absence limit allows, unless it was overridden.
select
    partner_id,
    run_id,
    listed_before,
    absent,
    overrides
from sync_run
where
    status = 'succeeded'
    and absent > greatest(
        10,
        0.2 * listed_before,
        cast(overrides ->> 'accept_absences' as numeric)
    )
    and not overrides ? 'absence_brake'
