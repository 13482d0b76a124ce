-- What was counted at each publication is what its changes of status tell; the sums are the present.
with present as (
    select
        token.partner_id,
        case when token.is_listed then upload_token_status_name(token.status) else 'NOT_LISTED' end
        as status,
        count(*) as tokens
    from upload_token as token
    group by 1, 2
),

summed as (
    select
        log.partner_id,
        log.status,
        sum(log.tokens) as tokens,
        sum(log.unseen_tokens) as unseen_tokens
    from upload_token_status_count_log as log
    group by 1, 2
)

select
    coalesce(derived.partner_id, log.partner_id) as partner_id,
    coalesce(derived.run_id, log.run_id) as run_id,
    coalesce(derived.quarter_hour, log.quarter_hour) as quarter_hour,
    coalesce(derived.status, log.status) as status,
    derived.tokens as expected,
    log.tokens as found,
    derived.unseen_tokens as expected_unseen,
    log.unseen_tokens as found_unseen
from upload_token_status_count as derived
full join upload_token_status_count_log as log
    on
        log.partner_id = derived.partner_id
        and log.run_id = derived.run_id
        and log.quarter_hour = derived.quarter_hour
        and log.status = derived.status
left join sync_run as run on run.run_id = coalesce(derived.run_id, log.run_id)
left join upload_token_horizon as pruned
    on pruned.partner_id = coalesce(derived.partner_id, log.partner_id)
where
    (derived.tokens, derived.unseen_tokens, derived.status_code)
    is distinct from (log.tokens, log.unseen_tokens, log.status_code)
    -- What earlier runs counted of versions that were pruned cannot be derived any more.
    and coalesce(run.published_at >= pruned.horizon, true)
union all
select
    coalesce(present.partner_id, summed.partner_id) as partner_id,
    cast(null as bigint) as run_id,
    cast(null as timestamptz) as quarter_hour,
    coalesce(present.status, summed.status) as status,
    present.tokens as expected,
    summed.tokens as found,
    0 as expected_unseen,
    summed.unseen_tokens as found_unseen
from present
full join summed on summed.partner_id = present.partner_id and summed.status = present.status
where
    coalesce(present.tokens, 0) <> coalesce(summed.tokens, 0)
    or coalesce(summed.unseen_tokens, 0) <> 0
