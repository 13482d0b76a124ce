-- The tokens as the warehouse knew them at a moment: what the last run before it had published.
--
-- At the moment of a publication the new versions count.  A token that was no longer listed then
-- is among them, with is_listed false.  Columns are those of upload_token_history: valid_to and
-- is_current say what is true of the version today.
create or replace function upload_token_as_of(at timestamptz)
returns setof upload_token_history
language sql
stable
parallel safe
-- Bound at creation: no search_path can change what it reads, and it is still inlined.
begin atomic
    select known.*
    from upload_token_history as known
    where known.is_current and known.valid_from <= upload_token_as_of.at
    union all
    select known.*
    from upload_token_history as known
    where
        not known.is_current
        and known.valid_from <= upload_token_as_of.at
        and known.valid_to > upload_token_as_of.at;
end
