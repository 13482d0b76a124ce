-- A token was marked absent only by a run that looked it up by its id (until pages are pruned).
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

-- All ids of a short lookup; of a long one the first and the last, with an ellipsis between
-- (pages of version 0.1 name the first one only).
look_up as (
    select
        page.run_id,
        string_to_array(cast(page.filter as jsonb) ->> 'idIn', ',') as ids
    from sync_page as page
    inner join sync_run as run on run.run_id = page.run_id
    where
        page.filter like '%"idIn"%'
        -- A lookup of an earlier run of the walk confirms nothing; program versions without
        -- oldest_page_at accepted it.
        and (page.requested_at >= run.started_at or run.oldest_page_at is null)
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
    absence.partner_id,
    absence.token_id,
    absence.version,
    absence.run_id,
    absence.created_at
from absence
left join sync_run as run on run.run_id = absence.run_id
where
    coalesce(run.pages_pruned, 0) = 0
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
