-- When a token that the row "filled" shows for the first time got its status, as it is estimated.
select
    case
        -- Every token begins as PENDING, and a token never seen otherwise still was.
        when filled.status = 0 then bounds.happened_after
        -- updated_at is in whole seconds: the second may begin before the interval does.
        when
            filled.updated_at + interval '1 second' > bounds.happened_after
            and filled.updated_at <= filled.observed_at
            then greatest(filled.updated_at, bounds.happened_after)
        -- In seconds: days would make it depend on the session's time zone.
        else bounds.happened_after + make_interval(
            secs => date_part('epoch', filled.observed_at - bounds.happened_after) / 2
        )
    end as happened_at
from (select least(filled.created_at, filled.observed_at) as happened_after) as bounds
