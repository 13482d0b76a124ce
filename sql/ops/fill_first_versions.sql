-- Tells first_happened_at of the earlier versions that were published without it, in their order.
-- :first_moment is first_moment.sql, which no table is joined for: rows are written as they are read.
update upload_token_superseded as filled
set first_happened_at = (:first_moment)
where filled.version = 1 and filled.first_happened_at is null
