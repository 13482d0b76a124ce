-- Which uploads were resumed after half a day or more, and how certain is that?
-- Variables: partner_id, since
with run as (
    select
        *,
        -- The looks at all open tokens before it.
        max(case when reads_open then run_id end) over before_it as look_id,
        max(case when reads_open then began_at end) over before_it as look_at
    from (
        select
            published.run_id,
            published.published_at,
            walk.started_at as began_at,
            published.coverage + published.open_coverage = '{(,)}' as reads_open
        from sync_run as published
        inner join sync_run as walk
            on published.partner_id = walk.partner_id and published.walk_id = walk.run_id
        where published.partner_id = :partner_id and published.published_at is not null
    ) as published
    window before_it as (
        order by published_at
        rows between unbounded preceding and 1 preceding
    )
),

grown as (
    select
        later.token_id,
        later.user_id,
        earlier.updated_at as paused_at,
        earlier.uploaded_size_bytes as received_before,
        later.uploaded_size_bytes as received_after,
        later.file_size_bytes as announced,
        later.updated_at - earlier.updated_at as at_most,
        -- The last look that saw it pausing: what was not listed since may have gone on.
        case
            when earlier.is_listed
                then
                    greatest(
                        first_look.began_at,
                        case when unseen.run_id is null then last_look.look_at end
                    )
            else earlier.last_listed_at
        end - earlier.updated_at as at_least
    from upload_token_superseded as earlier
    inner join upload_token_history as later
        on
            earlier.partner_id = later.partner_id
            and earlier.token_id = later.token_id
            and earlier.version + 1 = later.version
    inner join run as first_look on earlier.run_id = first_look.run_id
    inner join run as last_look on later.run_id = last_look.run_id
    left join unobserved_token as unseen
        on
            earlier.partner_id = unseen.partner_id
            and earlier.token_id = unseen.token_id
            and last_look.look_id = unseen.run_id
    where
        earlier.partner_id = :partner_id
        and earlier.valid_to >= cast(:'since' as timestamptz)
        -- The same moment, said of both: neither is read further back.
        and later.valid_from >= cast(:'since' as timestamptz)
        and earlier.status = 1
        and later.uploaded_size_bytes > earlier.uploaded_size_bytes
        and later.updated_at >= earlier.updated_at + interval '12 hours'
)

select
    token_id,
    user_id,
    paused_at,
    greatest(at_least, interval '0') as at_least,
    at_most,
    coalesce(at_least >= interval '12 hours', false) as certain,
    received_before,
    received_after,
    announced
from grown
order by paused_at, token_id
