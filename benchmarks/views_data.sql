-- A warehouse of :tokens tokens with three times as many versions over 60 nights, written directly.
--
-- Every fourth night's walk could not read one second, and one or more runs of the newest tokens and of
-- the open ones follow each night: one at noon, or one every five minutes.  Tokens are made over 117 days, those of the first half before the first night.
-- One in five has one version, one in five two, and so on to five; of the last versions 5 % are
-- absences, 80 % closed, 8 % failed, 7 % open or deleted.  Every check of verify holds; of the pages
-- the ledger says that they were pruned.
begin;
set local search_path = kaltura;
set local synchronous_commit = off;

-- Of :runs_per_night runs from :first_night on, the first is a full one.  With more than two there is one
-- every five minutes: the second finds the full one at work, of 97 one fails and one cannot read a second
-- of the open tokens, and the pages of the last 90 days are kept.
insert into sync_run (
    run_id, partner_id, walk_id, mode, status, started_at, heartbeat_at, finished_at,
    published_at, coverage, open_coverage, holes, unreadable, pages, pages_pruned, error_kind
)
overriding system value
select
    slot.run_id,
    101,
    slot.run_id,
    case when slot.is_full then 'full' else 'incremental' end,
    slot.status,
    began.at,
    began.at + slot.takes,
    began.at + slot.takes,
    case when slot.status = 'succeeded' then began.at + 0.9 * slot.takes end,
    case
        when slot.status <> 'succeeded' then '{}'
        when not slot.is_full
            then int8multirange(int8range(extract(epoch from began.at)::bigint - 50000, null))
        when slot.has_hole then '{(,1700000000),[1700000001,)}'
        else '{(,)}'
    end,
    case
        when slot.is_full or slot.status <> 'succeeded' then '{}'
        when slot.has_hole then '{(,1700000000),[1700000001,)}'
        else '{(,)}'
    end::int8multirange,
    case
        when not slot.has_hole then '[]'
        when slot.is_full then '[{"span": "[1700000000,1700000001)", "reason": "unreadable"}]'
        else '[{"span": "[1700000000,1700000001)", "reason": "unreadable", "open_only": true}]'
    end::jsonb,
    slot.has_hole::int,
    case when slot.status <> 'succeeded' then 0 when slot.keeps_pages then 12 else 1 end,
    case when slot.status <> 'succeeded' or slot.keeps_pages then 0 else 1 end,
    case slot.status when 'failed' then 'service_unavailable' when 'skipped' then 'lease_held' end
from
    generate_series(:first_night, 60) as night,
    generate_series(0, :runs_per_night - 1) as number,
    lateral (
        select
            number = 0 as is_full,
            :runs_per_night > 2 and number > 0 as is_frequent,
            :runs_per_night * (night - :first_night) + number + 1 as run_id
    ) as numbered,
    lateral (
        select
            numbered.run_id,
            numbered.is_full,
            case when numbered.is_frequent then 1 else 10 end * interval '1 minute' as takes,
            numbered.is_frequent and night > -30 as keeps_pages,
            case
                when numbered.is_full then night % 4 = 0
                else numbered.is_frequent and number > 1 and run_id % 97 = 7
            end as has_hole,
            case
                when not numbered.is_frequent then 'succeeded'
                when number = 1 then 'skipped'
                when run_id % 97 = 0 then 'failed'
                else 'succeeded'
            end as status
    ) as slot,
    lateral (
        select timestamptz '2026-08-01 02:00:00+00' + make_interval(
            days => night, mins => case when numbered.is_frequent then 5 else 600 end * number
        ) as at
    ) as began;

-- One page of the newest tokens, and eleven of the open ones.
insert into sync_page (
    run_id, seq, page_index, page_size, filter, requested_at, received_at, rows, span, body_sha256
)
select
    run.run_id,
    seq,
    case seq when 1 then 1 else seq - 1 end,
    500,
    case seq
        when 1 then '{"orderBy":"-createdAt"}'
        else '{"orderBy":"+createdAt","statusIn":"0,1,2"}'
    end,
    run.started_at + make_interval(secs => 3 * seq),
    run.started_at + make_interval(secs => 3 * seq + 1),
    0,
    case seq
        when 1 then int8range(lower(run.coverage), null)
        -- The second page ends before the hole of a run that has one.
        else int8range(
            case
                when seq = 3 and run.holes <> '[]' then 1700000001
                when seq > 2 then 1700000000 + (seq - 3) * 5000000
            end,
            case when seq < 12 then 1700000000 + (seq - 2) * 5000000 end
        )
    end,
    sha256(convert_to(run.run_id || ' ' || seq, 'UTF8'))
from sync_run as run
cross join generate_series(1, 12) as seq
where run.pages = 12;

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
    :runs_per_night * (night - :first_night) + 1, next_began.at + interval '9 minutes', :runs_per_night * (next_night - :first_night) + 1
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
    :runs_per_night * (night - :first_night) + 1
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
