-- A token was called absent only by a run that asked for it by its id (until pages are pruned).
with absence as (
    select
        partner_id,
        token_id,
        version,
        run_id,
        created_at
    from upload_token_history
    where change_kind = 'absent'
),

-- All ids of a short look-up; of a long one the first and the last, with an ellipsis between
-- (pages of version 0.1 name the first one only).
look_up as (
    select
        run_id,
        string_to_array(cast(filter as jsonb) ->> 'idIn', ',') as ids
    from sync_page
    where filter like '%"idIn"%'
),

asked as (
    select
        run_id,
        ids,
        ids[1] as first_id,
        ids[3] as last_id
    from look_up
)

select
    partner_id,
    token_id,
    version,
    run_id,
    created_at
from absence
where
    exists (select 1 from sync_page as page where page.run_id = absence.run_id) -- else pruned
    and not exists (
        select 1 from asked
        where
            asked.run_id = absence.run_id
            and case
                when asked.ids[2] like '%…%'
                    then absence.token_id >= asked.first_id collate "C"
                        and coalesce(absence.token_id <= asked.last_id collate "C", true)
                else absence.token_id = any (asked.ids)
            end
    )
