-- Tells latest versions what their tokens passed unseen when they went on after a failure.
-- For rows of revisions 0016 and later, which left that out.  Those of which all changes are there are
-- told all anew, in their order; to the others, and to those with many stays, which may be summed up,
-- it is added, unless it is there.
with reopened as (
    select
        moment.partner_id,
        moment.token_id,
        moment.version
    from upload_token_status_moment_log as moment
    left join upload_token_status_moment_log as absence
        on
            moment.change_kind = 'relisted'
            and absence.partner_id = moment.partner_id
            and absence.token_id = moment.token_id
            and absence.version = moment.from_version
    where
        moment.to_status_code in (2, 3)
        and coalesce(moment.from_status_code, absence.from_status_code) in (4, 6)
),

passed as (
    select
        stay.partner_id,
        stay.token_id,
        array_agg(number.of_stay order by stay.version, stay.status_code, number.place) as stays
    from reopened
    inner join upload_status_stay as stay
        on
            stay.partner_id = reopened.partner_id
            and stay.token_id = reopened.token_id
            and stay.version = reopened.version
            and not stay.seen
    cross join lateral (
        values
        (1, cast(stay.status_code as double precision)),
        (2, -1),
        (3, stay.at_most_seconds),
        (4, stay.estimated_at_most_seconds)
    ) as number (place, of_stay)
    group by stay.partner_id, stay.token_id
)

update upload_token as filled
set
    earlier_stays = case
        when
            cardinality(derived.earlier_stays) <= 128
            and exists (
                select 1 from upload_token_superseded as first_one
                where
                    first_one.partner_id = filled.partner_id
                    and first_one.token_id = filled.token_id
                    and first_one.version = 1
            )
            then derived.earlier_stays
        when filled.earlier_stays @> passed.stays then filled.earlier_stays
        else filled.earlier_stays || passed.stays
    end
from passed
cross join lateral (
    select known.earlier_stays
    from upload_token_earlier_stay as known
    where known.partner_id = passed.partner_id and known.token_id = passed.token_id
) as derived
where filled.partner_id = passed.partner_id and filled.token_id = passed.token_id
