-- Tells the latest versions where their tokens were before, each row once and in their order.
-- Asked row by row: a join would write the rows in no order.
update upload_token as filled
set
    (earlier_stays, went_back) = (
        select
            derived.earlier_stays,
            derived.went_back
        from upload_token_earlier_stay as derived
        where derived.partner_id = filled.partner_id and derived.token_id = filled.token_id
    )
where filled.status_version > 1 and filled.earlier_stays is null
