-- Each change of status or presence, appended by run: the pattern for models over the history.
--
-- What a run published never changes, and runs of an account publish in the order of their numbers
-- (runs of different accounts do not), so the rows of newer runs of the account are all that is new.
{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='append_new_columns',
        indexes=[
            {'columns': ['partner_id', 'token_id', 'version'], 'unique': True},
            {'columns': ['partner_id', 'run_id']},
        ],
    )
}}

select
    change.partner_id,
    change.token_id,
    change.version,
    change.from_status,
    change.to_status,
    change.change_kind,
    change.happened_at,
    change.happened_after,
    change.happened_before,
    extract(epoch from change.happened_before - change.happened_after) as uncertain_by_seconds,
    change.valid_from,
    change.run_id
from {{ ref('stg_kaltura__status_changes') }} as change
{% if is_incremental() %}
left join (
    select
        partner_id,
        max(run_id) as run_id
    from {{ this }}
    group by partner_id
) as known on known.partner_id = change.partner_id
where change.run_id > coalesce(known.run_id, 0)
{% endif %}
