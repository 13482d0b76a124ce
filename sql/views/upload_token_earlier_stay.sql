-- Stays that are over, of each token that has changed its status, derived anew from its changes.
--
-- For verify, which compares it with upload_token.  Of stays that a pruned version ended it knows
-- nothing.
-- partner_id: Kaltura account (partner).
-- token_id: Kaltura's id of the token, bytewise.
-- earlier_stays: As in upload_token.
-- went_back: As in upload_token.
create or replace view upload_token_earlier_stay with (security_invoker = true) as
select
    stay.partner_id,
    stay.token_id,
    -- In the order in which they were published.
    array_agg(number.of_stay order by stay.version, stay.seen, stay.status_code, number.place)
    as earlier_stays,
    nullif(
        exists (
            select 1 from upload_token_status_moment_log as back
            where
                back.partner_id = stay.partner_id
                and back.token_id = stay.token_id
                and (
                    back.change_kind = 'absent'
                    or (
                        back.from_status_code >= 0
                        and back.to_status_code > back.from_status_code
                        and back.to_status_code <= 6
                    )
                ) is not true
        ),
        false
    ) as went_back
from upload_status_stay as stay
inner join upload_token as token
    on token.partner_id = stay.partner_id and token.token_id = stay.token_id
cross join lateral (
    values
    (
        1,
        case
            when stay.status = 'NOT_LISTED' then 32768
            else cast(coalesce(stay.status_code, 32769) as double precision)
        end
    ),
    (2, case when stay.seen then stay.at_least_seconds else -1 end),
    (3, stay.at_most_seconds),
    (4, stay.estimated_at_most_seconds)
) as number (place, of_stay)
where not stay.is_current and token.status_version > 1
group by stay.partner_id, stay.token_id
