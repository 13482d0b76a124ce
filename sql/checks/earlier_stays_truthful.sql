-- The stays of a token that are over are those that its changes of status tell.
select
    token.partner_id,
    token.token_id,
    token.earlier_stays,
    derived.earlier_stays as derived_stays
from upload_token as token
left join upload_token_earlier_stay as derived
    on derived.partner_id = token.partner_id and derived.token_id = token.token_id
left join upload_token_superseded as first_one
    on
        first_one.partner_id = token.partner_id
        and first_one.token_id = token.token_id
        and first_one.version = 1
where
    case
        when token.version = 1 or first_one.version is not null
            then token.went_back is distinct from derived.went_back
            or case
                -- As many are kept one by one (load/stays.py).
                when coalesce(cardinality(derived.earlier_stays), 0) <= 128
                    then token.earlier_stays is distinct from derived.earlier_stays
            end
        -- Of what a pruned version told only the token tells.
        else derived.went_back and token.went_back is not true
            or case
                when token.went_back is not true
                    then derived.earlier_stays is not null
                    and (derived.earlier_stays <@ token.earlier_stays) is not true
            end
    end
    -- One by one or summed up, a status has the same sum, to a millisecond; of those that are pruned
    -- the token knows more.
    or token.went_back and exists (
        select 1
        from (
            select
                derived.earlier_stays[place] as code,
                sum(greatest(derived.earlier_stays[place + 1], 0)) as at_least,
                sum(derived.earlier_stays[place + 2]) as at_most,
                sum(derived.earlier_stays[place + 3]) as estimated
            from generate_series(1, cardinality(derived.earlier_stays), 4) as place
            group by 1
        ) as told
        full join (
            select
                token.earlier_stays[place] as code,
                sum(greatest(token.earlier_stays[place + 1], 0)) as at_least,
                sum(token.earlier_stays[place + 2]) as at_most,
                sum(token.earlier_stays[place + 3]) as estimated
            from generate_series(1, cardinality(token.earlier_stays), 4) as place
            group by 1
        ) as kept on kept.code = told.code
        where
            (kept.at_least >= told.at_least - 0.001) is false
            or (kept.at_most >= told.at_most - 0.001) is false
            or (kept.estimated >= told.estimated - 0.001) is false
            or told.code is not null and kept.code is null
            or first_one.version is not null
            and (
                told.code is null
                or kept.at_least > told.at_least + 0.001
                or kept.at_most > told.at_most + 0.001
                or kept.estimated > told.estimated + 0.001
            )
    )
