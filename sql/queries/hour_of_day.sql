-- At which hour of the day are files uploaded, and when do uploads fail?
-- Variables: partner_id, since; the hours are those of kaltura.time_zone, a setting of the session
with started as (
    select
        extract(hour from created_at at time zone kaltura_time_zone()) as hour,
        count(*) as started,
        count(*) filter (where outcome = 'succeeded') as succeeded,
        make_interval(
            secs => percentile_cont(0.5) within group (order by seconds_to_complete)
        ) as median
    from upload_outcome
    where partner_id = :partner_id and created_at >= cast(:'since' as timestamptz)
    group by hour
),

-- Each time that an upload became TIMED_OUT or ERROR, whatever became of it.
failed as (
    select
        case
            -- The middle of a long interval is no hour at which anything happened.
            when
                token.updated_at = change.happened_at
                or change.happened_before <= change.happened_after + interval '1 hour'
                then extract(hour from change.happened_at at time zone kaltura_time_zone())
        end as hour,
        count(*) as failures
    from upload_token_status_history as change
    inner join upload_token_history as token
        on
            change.partner_id = token.partner_id
            and change.token_id = token.token_id
            and change.version = token.version
    where
        change.partner_id = :partner_id
        and change.happened_at >= cast(:'since' as timestamptz)
        and change.to_status_code in (4, 6)
        and change.from_status_code is distinct from 4
        and change.from_status_code is distinct from 6
        -- Listed again: it may have failed long before.
        and change.change_kind <> 'relisted'
    group by hour
)

select
    hour,
    coalesce(started.started, 0) as started,
    coalesce(started.succeeded, 0) as succeeded,
    started.median,
    -- NULL: of that time changes have been deleted (prune).
    case
        when
            not exists (
                select 1 from upload_token_horizon as pruned
                where
                    pruned.partner_id = :partner_id
                    and pruned.horizon > cast(:'since' as timestamptz)
            )
            then coalesce(failed.failures, 0)
    end as failures
from started
full join failed using (hour)
order by hour
