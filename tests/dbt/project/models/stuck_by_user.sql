-- A mart over a model of the package.
select
    partner_id,
    user_id,
    count(*) as stuck_uploads,
    max(stuck_for_seconds) as longest_seconds
from {{ ref('stg_kaltura__stuck_uploads') }}
group by partner_id, user_id
