-- The status of a run agrees with its timestamps and its error.
select
    partner_id,
    run_id,
    status,
    started_at,
    finished_at,
    published_at,
    error_kind
from sync_run
where
    finished_at < started_at
    or case status
        when 'running' then finished_at is not null or published_at is not null
        when 'succeeded'
            then finished_at is null or published_at is null or error_kind is not null
        else finished_at is null or published_at is not null or error_kind is null
    end
