-- Since when the versions of each account are all there: earlier ones have been pruned.
--
-- An account of which no version was pruned has no row.  Latest versions are never pruned.
-- partner_id: Kaltura account (partner).
-- horizon: All versions that were valid then or later are there; of those that were replaced before,
--   the ones that remain are older than nothing that is missing.
create or replace view upload_token_horizon with (security_invoker = true) as
select
    pruning.partner_id,
    max(pruning.horizon) as horizon
from pruning
where pruning.kind = 'versions' and pruning.deleted > 0
group by pruning.partner_id
