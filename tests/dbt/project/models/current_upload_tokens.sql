-- The snapshot view as a dbt snapshot would be read: the present version of each token.
select
    partner_id,
    token_id,
    status,
    dbt_scd_id,
    dbt_valid_from
from {{ source('kaltura', 'upload_token_snapshot_dbt') }}
where dbt_valid_to is null and dbt_is_deleted = 'False'
