-- The name of a bucket of sizes by its number, 1 to 7: upload_outcome.size_bucket_order.
create or replace function upload_size_bucket(bucket_order smallint)
returns text
language sql
immutable
parallel safe
return (
    array['< 1 MB', '1-10 MB', '10-100 MB', '100 MB-1 GB', '1-10 GB', '> 10 GB', 'unknown']
)[bucket_order]
