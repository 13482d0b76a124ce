-- Tells the latest versions what they were published without, each row once and in their order.
-- :first_moment and :since are the files of that name, asked row by row: a join would write the
-- rows in no order.
update upload_token as filled
set
    first_closed_at = least(
        filled.first_closed_at,
        case when filled.status = 3 then filled.updated_at end,
        (
            select min(earlier.updated_at) as first_closed_at
            from upload_token_superseded as earlier
            where
                earlier.partner_id = filled.partner_id
                and earlier.token_id = filled.token_id
                and earlier.status = 3
        )
    ),
    first_happened_at = case
        when filled.version = 1 then coalesce(filled.first_happened_at, (:first_moment))
    end,
    (status_version, status_happened_at, status_happened_after, status_happened_before) = (:since)
where
    (filled.version = 1 and filled.first_happened_at is null)
    or (filled.version > 1 and filled.status_version is null)
