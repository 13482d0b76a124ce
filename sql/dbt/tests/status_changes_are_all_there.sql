-- Changes that the incremental model does not have.
--
-- A run published them, and the model has others of the same account from as new a run.
select
    change.partner_id,
    change.token_id,
    change.version
from {{ ref('stg_kaltura__status_changes') }} as change
inner join (
    select
        partner_id,
        max(run_id) as run_id
    from {{ ref('kaltura_status_changes') }}
    group by partner_id
) as known on known.partner_id = change.partner_id and known.run_id >= change.run_id
left join {{ ref('kaltura_status_changes') }} as kept
    on
        kept.partner_id = change.partner_id
        and kept.token_id = change.token_id
        and kept.version = change.version
where kept.token_id is null
