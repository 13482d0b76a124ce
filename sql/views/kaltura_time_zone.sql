-- The zone in which the views cut days: the setting kaltura.time_zone, else UTC.
--
-- set kaltura.time_zone = 'Europe/Berlin'; an unknown zone is an error of the views that use it.
-- Not the setting TimeZone, which many drivers set implicitly.
create or replace function kaltura_time_zone()
returns text
language sql
stable
parallel safe
return coalesce(nullif(current_setting('kaltura.time_zone', true), ''), 'UTC')
