-- A mart over a view of the warehouse.
select
    partner_id,
    user_id,
    count(*) as stuck_uploads,
    max(stuck_for) as longest
from {{ source('kaltura', 'stuck_upload') }}
group by partner_id, user_id
