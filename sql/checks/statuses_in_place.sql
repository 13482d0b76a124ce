-- The names of the known statuses are there; without them, views call all of them unknown.
select
    cast(null as integer) as partner_id,
    status.code as missing
from generate_series(0, 6) as status (code)
where not exists (select 1 from upload_token_status as named where named.code = status.code)
