-- Tells the earlier versions since when they have their status or presence, in their order.
-- :since is since.sql, asked row by row: a join would write the rows in no order.
update upload_token_superseded as filled
set
    (status_version, status_happened_at, status_happened_after, status_happened_before) = (:since)
where filled.version > 1 and filled.status_version is null
