-- What disappeared in the last seven days, and when?
-- Variables: partner_id, now
select
    change.run_id,
    change.token_id,
    change.from_status as last_status,
    token.is_listed as is_back,
    change.happened_after as went_after,
    change.happened_before as went_before
from upload_token_status_history as change
inner join upload_token as token
    on change.partner_id = token.partner_id and change.token_id = token.token_id
where
    change.partner_id = :partner_id
    and change.to_status = 'NOT_LISTED'
    and change.valid_from >= cast(:'now' as timestamptz) - interval '7 days'
order by change.valid_from desc, change.token_id
