-- Runs of an account published one after another, in the order of their numbers.
select
    partner_id,
    run_id,
    published_at,
    published_before
from (
    select
        partner_id,
        run_id,
        published_at,
        lag(published_at) over (partition by partner_id order by run_id) as published_before
    from sync_run
    where published_at is not null
) as published
where published_at <= published_before
