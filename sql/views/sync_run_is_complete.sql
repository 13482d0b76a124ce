-- Whether a run covered all of createdAt, except what the service could not return or keep still.
--
-- Its arguments are two columns of sync_run.  Only what was published counts: published_at is not
-- null.
create or replace function sync_run_is_complete(coverage int8multirange, holes jsonb)
returns boolean
language sql
immutable
parallel safe
return coverage = '{(,)}'
or (holes <> '[]' and coverage + sync_tolerated_holes(holes, false) = '{(,)}')
