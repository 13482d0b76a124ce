-- Which uploads were resumed after half a day or more, and how certain is that?
-- Variables: partner_id, since
with grown as (
    select
        later.token_id,
        later.user_id,
        earlier.updated_at as paused_at,
        earlier.uploaded_size_bytes as received_before,
        later.uploaded_size_bytes as received_after,
        later.file_size_bytes as announced,
        later.updated_at - earlier.updated_at as at_most,
        -- The last look that saw it pausing.
        (
            select max(walk.started_at) - earlier.updated_at
            from sync_run as run
            inner join sync_run as walk
                on walk.partner_id = run.partner_id and run.walk_id = walk.run_id
            where
                run.partner_id = :partner_id
                and run.published_at >= earlier.valid_from
                and run.published_at < later.valid_from
                and (
                    run.run_id = earlier.run_id
                    or run.coverage + run.open_coverage = '{(,)}'
                )
                and not exists (
                    select 1 from unobserved_token as unseen
                    where
                        unseen.partner_id = :partner_id
                        and unseen.token_id = earlier.token_id
                        and unseen.run_id = run.run_id
                )
        ) as at_least
    from upload_token_superseded as earlier
    inner join upload_token_history as later
        on
            earlier.partner_id = later.partner_id
            and earlier.token_id = later.token_id
            and earlier.version + 1 = later.version
    where
        earlier.partner_id = :partner_id
        and earlier.valid_to >= cast(:'since' as timestamptz)
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
