-- A warehouse of :tokens tokens with three times as many versions over 60 nights, written directly.
--
-- Every fourth night's walk could not read one second, and a run of the newest tokens follows each
-- night at noon.  Tokens are made over 117 days, those of the first half before the first night.
-- One in five has one version, one in five two, and so on to five; of the last versions 5 % are
-- absences, 80 % closed, 8 % failed, 7 % open or deleted.  Every check of verify holds; of the pages
-- the ledger says that they were pruned.
begin;
set local search_path = kaltura;
set local synchronous_commit = off;

insert into sync_run (
    run_id, partner_id, walk_id, mode, status, started_at, heartbeat_at, finished_at,
    published_at, coverage, open_coverage, holes, pages, pages_pruned
)
overriding system value
select
    2 * night - 1 + half,
    101,
    2 * night - 1 + half,
    case half when 0 then 'full' else 'incremental' end,
    'succeeded',
    began.at,
    began.at + interval '10 minutes',
    began.at + interval '10 minutes',
    began.at + interval '9 minutes',
    case
        when half = 1 then int8multirange(int8range(extract(epoch from began.at)::bigint - 50000, null))
        when night % 4 = 0 then '{(,1700000000),[1700000001,)}'
        else '{(,)}'
    end,
    case half when 1 then '{(,)}' else '{}' end::int8multirange,
    case
        when half = 0 and night % 4 = 0
            then '[{"span": "[1700000000,1700000001)", "reason": "unreadable"}]'
        else '[]'
    end::jsonb,
    1,
    1
from
    generate_series(1, 60) as night,
    generate_series(0, 1) as half,
    lateral (
        select timestamptz '2026-08-01 02:00:00+00'
            + make_interval(days => night, hours => 10 * half) as at
    ) as began;

-- The versions of a token are of consecutive nights, an absence is of a later one and repeats what
-- the version before it shows.
create temporary table version_full on commit drop as
select
    101 as partner_id,
    token_id,
    user_id,
    told.status,
    file_name,
    file_size_bytes,
    case when shown = last_shown then file_size_bytes else file_size_bytes * shown / versions end
    as uploaded_size_bytes,
    created_at,
    created_at + make_interval(days => shown - 1, secs => 60 + dice * 100) as updated_at,
    not absent as is_listed,
    version,
    case when version = 1 then 'first_seen' when absent then 'absent' else 'changed' end
    as change_kind,
    case
        when version = 1 then null
        when absent then '{is_listed}'
        else array_remove(
            array[
                case when told.status <> least(shown - 2, 2) then 'status' end,
                case when file_size_bytes is not null then 'uploaded_size_bytes' end,
                'updated_at'
            ],
            null
        )
    end as changed_columns,
    first_night + version - 1 + case when absent then 30 else 0 end as night,
    case
        when version < least(versions, 61 - first_night)
            then first_night + version + case when version = last_shown then 30 else 0 end
    end as next_night
from (
    select
        numbered.*,
        -- Scattered, as the ids of the service are.
        '0_' || md5(number::text) as token_id,
        'user' || (number::bigint * 7919 % 5000) as user_id,
        'film ' || number || '.mp4' as file_name,
        case
            when number % 50 <> 0
                then (10::float ^ (4 + (number * 31::bigint % 700) / 100::float))::bigint
        end as file_size_bytes,
        timestamptz '2026-08-01 01:00:00+00' + make_interval(
            secs => floor(86400 * (117.0 * number / :tokens - 60))
        ) as created_at,
        versions - case when versions > 2 and dice < 5 and first_night < 25 then 1 else 0 end
        as last_shown
    from (
        select
            number,
            1 + number % 5 as versions,
            (number::bigint * 104729 % 100)::int as dice,
            greatest(1, ceil(117.0 * number / :tokens - 60))::int as first_night
        from generate_series(1, :tokens) as number
    ) as numbered
    offset 0  -- each token is made once, not for each column that is made of it
) as made
cross join lateral generate_series(1, least(versions, 61 - first_night)) as version
cross join lateral (
    select version > last_shown as absent, least(version, last_shown) as shown
) as kind
cross join lateral (
    select (
        case
            when shown < last_shown then least(shown - 1, 2)
            when dice < 85 then 3
            when dice < 91 then 4
            when dice < 93 then 6
            when dice < 95 then 5
            else dice % 3
        end
    )::smallint as status
) as told;

insert into upload_token_superseded (
    partner_id, token_id, user_id, status, file_name, file_size_bytes, uploaded_size_bytes,
    created_at, updated_at, auto_finalize, upload_url, is_listed, version, change_kind,
    changed_columns, valid_from, observed_at, last_listed_at, absence_confirmed_at, run_id,
    valid_to, superseded_by_run_id
)
select
    partner_id, token_id, user_id, status, file_name, file_size_bytes, uploaded_size_bytes,
    created_at, updated_at, false, 'https://upload.example', is_listed, version, change_kind,
    changed_columns, began.at + interval '9 minutes', began.at + interval '5 minutes', null, null,
    2 * night - 1, next_began.at + interval '9 minutes', 2 * next_night - 1
from
    version_full,
    lateral (select timestamptz '2026-08-01 02:00:00+00' + make_interval(days => night) as at)
        as began,
    lateral (select timestamptz '2026-08-01 02:00:00+00' + make_interval(days => next_night) as at)
        as next_began
where next_night is not null
order by next_night, created_at, token_id collate "C";

insert into upload_token (
    partner_id, token_id, user_id, status, file_name, file_size_bytes, uploaded_size_bytes,
    created_at, updated_at, auto_finalize, upload_url, is_listed, version, change_kind,
    changed_columns, valid_from, observed_at, last_listed_at, absence_confirmed_at, run_id
)
select
    partner_id, token_id, user_id, status, file_name, file_size_bytes, uploaded_size_bytes,
    created_at, updated_at, false, 'https://upload.example', is_listed, version, change_kind,
    changed_columns, began.at + interval '9 minutes', began.at + interval '5 minutes',
    case when not is_listed then began.at - interval '1 day' end,
    case when not is_listed then began.at + interval '5 minutes' end,
    2 * night - 1
from
    version_full,
    lateral (select timestamptz '2026-08-01 02:00:00+00' + make_interval(days => night) as at)
        as began
where next_night is null
order by created_at, token_id collate "C";

update sync_run as run
set
    inserted = told.inserted,
    changed = told.changed,
    absent = told.absent,
    tokens_read = told.inserted + told.changed,
    rows_read = told.inserted + told.changed,
    listed_before = told.listed_before
from (
    select
        published.run_id,
        coalesce(written.inserted, 0) as inserted,
        coalesce(written.changed, 0) as changed,
        coalesce(written.absent, 0) as absent,
        coalesce(sum(written.inserted - written.absent) over earlier, 0) as listed_before
    from sync_run as published
    left join (
        select
            run_id,
            count(*) filter (where change_kind = 'first_seen') as inserted,
            count(*) filter (where change_kind = 'changed') as changed,
            count(*) filter (where change_kind = 'absent') as absent
        from upload_token_history
        group by run_id
    ) as written on written.run_id = published.run_id
    window earlier as (
        order by published.run_id rows between unbounded preceding and 1 preceding
    )
) as told
where told.run_id = run.run_id;
commit;
