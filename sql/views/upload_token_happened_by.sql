-- For each token created by a moment, its last version that had happened by then, by Kaltura's times.
--
-- A first version counts from created_at; a later one from its updated_at where that changed with
-- it and is not later than the reply that showed it, else from that reply (an absence: from its
-- confirmation).  So a token is there from its creation on, in the first state that was seen.
create or replace function upload_token_happened_by(at timestamptz)
returns setof upload_token_history
language sql
stable
parallel safe
begin atomic
    select latest.*
    from upload_token_history as latest
    where
        latest.is_current
        and case
            when latest.version = 1 then latest.created_at
            when
                latest.is_listed
                and latest.updated_at <= latest.observed_at
                and 'updated_at' = any(latest.changed_columns)
                then latest.updated_at
            else latest.observed_at
        end <= upload_token_happened_by.at
    union all
    select
        -- Columns of the outer query, so that a condition on them is applied first.
        latest.partner_id,
        latest.token_id,
        earlier.version,
        earlier.valid_from,
        earlier.valid_to,
        earlier.is_current,
        earlier.change_kind,
        earlier.changed_columns,
        earlier.is_listed,
        earlier.user_id,
        earlier.status,
        earlier.file_name,
        earlier.file_size_bytes,
        earlier.uploaded_size_bytes,
        earlier.created_at,
        earlier.updated_at,
        earlier.attached_object_type,
        earlier.attached_object_id,
        earlier.auto_finalize,
        earlier.upload_url,
        earlier.extra,
        earlier.observed_at,
        earlier.last_listed_at,
        earlier.absence_confirmed_at,
        earlier.run_id,
        earlier.superseded_by_run_id,
        earlier.status_name,
        earlier.valid_period
    from upload_token as latest
    cross join lateral (
        select known.*
        from upload_token_history as known
        where
            known.partner_id = latest.partner_id
            and known.token_id = latest.token_id
            and not known.is_current
            and case
                when known.version = 1 then known.created_at
                when
                    known.is_listed
                    and known.updated_at <= known.observed_at
                    and 'updated_at' = any(known.changed_columns)
                    then known.updated_at
                else known.observed_at
            end <= upload_token_happened_by.at
        order by known.version desc
        limit 1
    ) as earlier
    where
        latest.version > 1
        and latest.created_at <= upload_token_happened_by.at
        and case
            when
                latest.is_listed
                and latest.updated_at <= latest.observed_at
                and 'updated_at' = any(latest.changed_columns)
                then latest.updated_at
            else latest.observed_at
        end > upload_token_happened_by.at;
end
