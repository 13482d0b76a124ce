-- The versions that an account lacks are as many as were counted when versions were pruned.
with counted as (
    select
        partner_id,
        sum(inserted + changed + absent + relisted) as versions
    from sync_run
    where status = 'succeeded'
    group by partner_id
),

kept as (
    select
        partner_id,
        count(*) as versions
    from upload_token_history
    group by partner_id
),

pruned as (
    select
        partner_id,
        sum(deleted) as versions
    from pruning
    where kind = 'versions'
    group by partner_id
)

select
    counted.partner_id,
    counted.versions as written,
    coalesce(kept.versions, 0) as kept,
    coalesce(pruned.versions, 0) as pruned
from counted
left join kept on kept.partner_id = counted.partner_id
left join pruned on pruned.partner_id = counted.partner_id
where counted.versions <> coalesce(kept.versions, 0) + coalesce(pruned.versions, 0)
