-- The zone in which the views cut days: the setting kaltura.time_zone, else UTC.
--
-- set kaltura.time_zone = 'Europe/Berlin'; an unknown zone is an error of the views that use it.
-- Not the setting TimeZone, which many drivers set implicitly.
--
-- On a worker of Citus UTC is no default, because the zone that was set on the coordinator may not
-- have reached it: it is an error there if none was set by set local or by alter role.
create or replace function kaltura_time_zone()
returns text
language sql
stable
parallel safe
return case
    when nullif(current_setting('kaltura.time_zone', true), '') is not null
        then current_setting('kaltura.time_zone', true)
    when starts_with(current_setting('application_name'), 'citus_internal')
        then current_setting('kaltura.time_zone, which this worker was not told')
    else 'UTC'
end
