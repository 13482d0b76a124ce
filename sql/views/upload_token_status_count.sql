-- What each publication added to the number of tokens in each status, from the changes themselves.
--
-- For verify, which compares it with upload_token_status_count_log.  Of an account whose versions
-- were pruned it has what came before the remaining changes as one count of the account's first run,
-- reckoned back from the present.
-- partner_id: Kaltura account (partner).
-- run_id: The run that published it.
-- quarter_hour: Beginning of the quarter of an hour in which it happened; see the log.
-- status: Name of the status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED for those no longer listed.
-- status_code: Its code; NULL for NOT_LISTED and UNKNOWN.
-- tokens: Tokens that came into the status minus those that left it.
-- unseen_tokens: The same of those in PENDING that no run saw so.
create or replace view upload_token_status_count with (security_invoker = true) as
with account as (
    select
        run.partner_id,
        min(run.run_id) as first_run_id,
        -- In hours: the length of a day depends on the session's time zone.
        date_bin('15 minutes', min(run.published_at), 'epoch') - interval '48 hours' as earliest,
        exists (
            select 1 from pruning
            where
                pruning.partner_id = run.partner_id
                and pruning.kind = 'versions'
                and pruning.deleted > 0
        ) as is_pruned
    from sync_run as run
    where run.published_at is not null
    group by run.partner_id
),

-- Few rows, before anything is said of them.  No join, which would be taken to leave few rows.
binned as (
    select
        moment.partner_id,
        moment.run_id,
        moment.change_kind,
        moment.from_status_code,
        moment.to_status_code,
        date_bin('15 minutes', moment.happened_at, 'epoch') as changed_at,
        case
            when moment.change_kind = 'first_seen'
                then date_bin('15 minutes', moment.happened_after, 'epoch')
        end as created_at,
        count(*) as tokens
    from upload_token_status_history as moment
    group by 1, 2, 3, 4, 5, 6, 7
),

changed as (
    select
        binned.partner_id,
        binned.run_id,
        case
            when binned.change_kind = 'absent' then 'NOT_LISTED'
            else upload_token_status_name(binned.to_status_code)
        end as to_status,
        binned.to_status_code,
        case
            when binned.change_kind = 'first_seen' then null
            when binned.change_kind = 'relisted' then 'NOT_LISTED'
            else upload_token_status_name(binned.from_status_code)
        end as from_status,
        binned.from_status_code,
        greatest(binned.changed_at, account.earliest) as changed_at,
        -- greatest() leaves NULLs out.
        case
            when binned.created_at is not null then greatest(binned.created_at, account.earliest)
        end as created_at,
        account.earliest,
        case when account.is_pruned then account.first_run_id end as pruned_run_id,
        binned.tokens
    from binned
    inner join account on account.partner_id = binned.partner_id
),

moved as (
    select
        changed.partner_id,
        delta.run_id,
        delta.quarter_hour,
        delta.status,
        delta.status_code,
        delta.tokens,
        delta.unseen
    from changed
    cross join lateral (
        values
        (
            changed.run_id,
            changed.changed_at,
            changed.to_status,
            changed.to_status_code,
            changed.tokens,
            0
        ),
        (
            changed.run_id,
            changed.changed_at,
            changed.from_status,
            changed.from_status_code,
            -changed.tokens,
            0
        ),
        -- Every token begins as PENDING; when first seen, happened_after is created_at.
        (changed.run_id, changed.created_at, 'PENDING', 0, changed.tokens, changed.tokens),
        (
            case when changed.created_at is not null then changed.run_id end,
            changed.changed_at,
            'PENDING',
            0,
            -changed.tokens,
            -changed.tokens
        ),
        -- Where first versions were pruned: reckoned back from what there is now.
        (
            changed.pruned_run_id,
            changed.earliest,
            changed.to_status,
            changed.to_status_code,
            -changed.tokens,
            0
        ),
        (
            changed.pruned_run_id,
            changed.earliest,
            changed.from_status,
            changed.from_status_code,
            changed.tokens,
            0
        )
    ) as delta (run_id, quarter_hour, status, status_code, tokens, unseen)
    where
        delta.run_id is not null
        and delta.quarter_hour is not null
        and delta.status is not null
    union all
    select
        token.partner_id,
        account.first_run_id as run_id,
        account.earliest as quarter_hour,
        case when token.is_listed then upload_token_status_name(token.status) else 'NOT_LISTED' end
        as status,
        case when token.is_listed then token.status end as status_code,
        count(*) as tokens,
        0 as unseen
    from upload_token as token
    inner join account on account.partner_id = token.partner_id
    where account.is_pruned
    group by 1, 2, 3, 4, 5
)

select
    moved.partner_id,
    moved.run_id,
    moved.quarter_hour,
    moved.status,
    cast(moved.status_code as smallint) as status_code,
    cast(sum(moved.tokens) as integer) as tokens,
    cast(sum(moved.unseen) as integer) as unseen_tokens
from moved
group by 1, 2, 3, 4, 5
having sum(moved.tokens) <> 0 or sum(moved.unseen) <> 0
