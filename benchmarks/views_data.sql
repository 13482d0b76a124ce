-- A warehouse of :tokens tokens with three times as many versions over 60 nights, written directly.
--
-- Every fourth night's walk could not read one second, and a run of the newest tokens follows each
-- night at noon.  Tokens are made over 117 days, those of the first half before the first night.
-- One in five has one version, one in five two, and so on to five; of the last versions 5 % are
-- absences, 80 % closed, 8 % failed, 7 % open or deleted.
begin;
set local search_path = kaltura;
set local synchronous_commit = off;

insert into sync_run (
    run_id, partner_id, walk_id, mode, status, started_at, heartbeat_at, finished_at,
    published_at, coverage, open_coverage
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
    case half when 1 then '{(,)}' else '{}' end::int8multirange
from
    generate_series(1, 60) as night,
    generate_series(0, 1) as half,
    lateral (
        select timestamptz '2026-08-01 02:00:00+00'
            + make_interval(days => night, hours => 10 * half) as at
    ) as began;

-- Run :night of a token's version: those of one token on consecutive nights, an absence later.
create temporary table made on commit drop as
select
    number,
    versions,
    first_night,
    -- Scattered, as the ids of the service are.
    '0_' || md5(number::text) as token_id,
    'user' || (number::bigint * 7919 % 5000) as user_id,
    'film ' || number || '.mp4' as file_name,
    case when number % 50 = 0 then null else (10 ^ (4 + (number * 31 % 700) / 100.0))::bigint end
    as file_size_bytes,
    timestamptz '2026-08-01 01:00:00+00' + make_interval(
        secs => floor(86400 * (117.0 * number / :tokens - 60))
    ) as created_at,
    (number::bigint * 104729 % 100)::int as dice
from (
    select
        number,
        1 + number % 5 as versions,
        greatest(1, ceil(117.0 * number / :tokens - 60))::int as first_night
    from generate_series(1, :tokens) as number
) as numbered;

create temporary table version_made on commit drop as
select
    made.*,
    version,
    least(60, first_night + version - 1 + case when absent then 30 else 0 end) as night,
    absent
from made
cross join lateral generate_series(1, least(versions, 61 - first_night)) as version
cross join lateral (
    select versions > 2 and version = versions and dice < 5 and first_night < 25 as absent
) as kind;

create temporary table version_full on commit drop as
select
    101 as partner_id,
    token_id,
    user_id,
    (
        case
            when version < versions and not (versions > 2 and version = versions - 1 and dice < 5)
                then least(version - 1, 2)
            when absent or dice < 85 then 3
            when dice < 93 then case when dice < 91 then 4 else 6 end
            when dice < 95 then 5
            else dice % 3
        end
    )::smallint as status,
    file_name,
    file_size_bytes,
    case when version = versions then file_size_bytes else file_size_bytes * version / versions end
    as uploaded_size_bytes,
    created_at,
    case
        when absent then created_at + interval '3 hours'
        else created_at + make_interval(days => version - 1, secs => 60 + dice * 100)
    end as updated_at,
    not absent as is_listed,
    version,
    case when version = 1 then 'first_seen' when absent then 'absent' else 'changed' end
    as change_kind,
    case
        when version = 1 then null
        when absent then '{is_listed}'
        when version between 2 and 3 or version = versions
            then '{status,uploaded_size_bytes,updated_at}'
        else '{uploaded_size_bytes,updated_at}'
    end::text[] as changed_columns,
    night,
    lead(night) over (partition by number order by version) as next_night
from version_made;

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
order by next_night, created_at, token_id;

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
order by created_at, token_id;
commit;
