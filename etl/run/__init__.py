"""One run, whatever its mode: where the service and the warehouse meet.

    plan     what a run reads: legs, ids, options
    engine   open, walk, confirm, audit, publish
    leg      one list: walk it and stage its pages in batches
    fetch    requests side by side; replies become pages
    audit    what must hold before a walk may be published: pure
    report   the outcome · service  opens the session · sync, backfill  the entry points
"""
