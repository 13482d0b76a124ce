"""One run, whatever its mode: where the service and the warehouse meet.

plan     what a run reads: legs, ids, options
engine   open, walk, confirm, audit, publish
leg      one list: walk it and stage its pages in batches
fetch    concurrent requests; replies become pages
audit    the conditions for publishing a walk: pure
report   the outcome · service  opens the session · sync, backfill  the entry points
accounts many runs of different accounts, side by side
"""
