-- The day on which the newest upload was created; NULL if there is none.
select cast(max(made.last_at) at time zone %(time_zone)s as date) as day
from (
    -- Those listed and the others: each have an index by created_at.
    select max(present.created_at) as last_at
    from upload_token as present
    where present.partner_id = %(partner_id)s and present.is_listed
    union all
    select max(gone.created_at) as last_at
    from upload_token as gone
    where gone.partner_id = %(partner_id)s and not gone.is_listed
) as made
limit 1;
