-- The day on which the newest upload was created; NULL if there is none.
select cast(max(created_at) at time zone %(time_zone)s as date) as day
from upload_token
where partner_id = %(partner_id)s
limit 1;
