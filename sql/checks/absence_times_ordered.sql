-- The timestamps of an absence are in order: one walk saw the token, a later one did not.
select
    absence.partner_id,
    absence.token_id,
    absence.version,
    walk.started_at as seen_after,
    absence.last_listed_at,
    absence.absence_confirmed_at,
    absence.observed_at
from upload_token_history as absence
left join upload_token_superseded as earlier
    on earlier.partner_id = absence.partner_id
    and earlier.token_id = absence.token_id
    and earlier.version = absence.version - 1
left join sync_run as published on published.run_id = earlier.run_id
left join sync_run as walk
    on walk.partner_id = published.partner_id and walk.run_id = published.walk_id
where
    absence.change_kind = 'absent'
    and (
        absence.absence_confirmed_at < absence.last_listed_at
        or absence.absence_confirmed_at <> absence.observed_at
        or absence.last_listed_at < walk.started_at
    )
