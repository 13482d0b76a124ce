-- The seconds of createdAt in the holes of a run that do not make it incomplete.
--
-- What the service could not return (unreadable) or keep still (tie_group); its arguments are
-- sync_run.holes, and whether holes in the list of open tokens count.
create or replace function sync_tolerated_holes(holes jsonb, with_open_only boolean)
returns int8multirange
language sql
immutable
parallel safe
return coalesce(
    (
        select range_agg(cast(hole ->> 'span' as int8range))
        from jsonb_array_elements(holes) as hole
        where
            hole ->> 'reason' in ('unreadable', 'tie_group')
            and (with_open_only or hole -> 'open_only' is null)
    ),
    '{}'
)
