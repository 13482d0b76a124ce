-- Writes the log of status counts of a warehouse that was published without it.
insert into upload_token_status_count_log (
    partner_id, run_id, quarter_hour, status, status_code, tokens, unseen_tokens
)
select
    derived.partner_id,
    derived.run_id,
    derived.quarter_hour,
    derived.status,
    derived.status_code,
    derived.tokens,
    derived.unseen_tokens
from upload_token_status_count as derived
order by derived.run_id, derived.quarter_hour, derived.status
