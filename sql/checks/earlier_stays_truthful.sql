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
            then (token.earlier_stays, token.went_back)
            is distinct from (derived.earlier_stays, derived.went_back)
        -- Of what a pruned version told only the token tells.
        else
            (derived.earlier_stays <@ token.earlier_stays) is not true
            and derived.earlier_stays is not null
            or derived.went_back and token.went_back is not true
    end
