-- The name of a status by its code, as in upload_token_status.
--
-- UNKNOWN_<code> for a code that Kaltura does not document, UNKNOWN for none.
create or replace function upload_token_status_name(status smallint)
returns text
language sql
immutable
parallel safe
-- Not read from the table: a join in a view of a union would keep keys of tokens from its indexes.
return case status
    when 0 then 'PENDING'
    when 1 then 'PARTIAL_UPLOAD'
    when 2 then 'FULL_UPLOAD'
    when 3 then 'CLOSED'
    when 4 then 'TIMED_OUT'
    when 5 then 'DELETED'
    when 6 then 'ERROR'
    else coalesce('UNKNOWN_' || cast(status as text), 'UNKNOWN')
end
