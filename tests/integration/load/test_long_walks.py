"""What reads all that a long walk has staged has the time for it, and keeps the lease meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from etl.errors import LeaseHeld
from etl.warehouse.ledger.lease import restart_walk
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.missing import missing_tokens
from etl.warehouse.load.publish import plan_changes
from etl.warehouse.load.resolve import audit_counts
from etl.warehouse.load.vanished import LACKING_AT_LEAST, vanished_fields
from etl.warehouse.schema.database import Database
from tests.support.nights import MakeNights, Nights, make_token, page_of

TOKENS = 10_000_000
SECONDS_OF_A_SLOW_DISK = 0.0005
"""For a row: 2 KB that are read, or written and read again, at 8 MB a second."""


@contextmanager
def limits_of(database: Database) -> Iterator[list[float]]:
    """The limit of the statements of each transaction, in seconds."""
    found: list[float] = []

    def note(*arguments: Any) -> None:
        values = list(arguments[3].values()) if isinstance(arguments[3], dict) else []
        if "statement_timeout" in values:
            found.append(int(values[values.index("statement_timeout") + 1]) / 1000)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def reading_all(nights: Nights, run: OpenRun) -> dict[str, Callable[[], object]]:
    """What a run asks of its whole walk between the last page and publishing."""
    counts = audit_counts(nights.database, run)
    many = replace(counts, changed=LACKING_AT_LEAST)
    return {
        "missing": lambda: missing_tokens(nights.database, run, after=None),
        "audit": lambda: audit_counts(nights.database, run),
        "vanished": lambda: vanished_fields(nights.database, run, many),
        "plan": lambda: plan_changes(nights.database, run, 10),
    }


@pytest.fixture
def nights(make_nights: MakeNights) -> Nights:
    """With small batches: what is staged is the same however it was sent."""
    return make_nights(small=True)


@pytest.fixture
def run(nights: Nights) -> OpenRun:
    run = nights.open()
    nights.stage(run, page_of([make_token("a")], from_start=True, to_end=True))
    return run


def test_the_limit_grows_with_what_is_staged_and_known(nights: Nights, run: OpenRun) -> None:
    """A short walk's statement is stopped soon; that of a long one is not for being long."""
    steps = reading_all(nights, run)
    with limits_of(nights.database) as short:
        for step in steps.values():
            step()
    staged, walk = run.walk.counts, run.walk
    walk.counts = replace(staged, staged=TOKENS)
    with limits_of(nights.database) as long:
        for step in steps.values():
            step()
        with pytest.raises(Exception, match="staging table has 1 rows"):
            nights.publish(run)
    walk.counts, run.baseline = staged, replace(run.baseline, listed_before=TOKENS)
    with limits_of(nights.database) as many_known:
        steps["vanished"]()

    assert len(short) == len(steps)
    assert max(short) < 600
    assert min([*long, *many_known]) > SECONDS_OF_A_SLOW_DISK * TOKENS


def test_what_deletes_the_staging_of_walks_has_as_long(nights: Nights, run: OpenRun) -> None:
    """Of a walk that nobody resumes: if it failed, so would every later run."""
    with limits_of(nights.database) as limits:
        restart_walk(nights.database, run)
        nights.query("update kaltura.sync_run set status = 'failed', finished_at = now()")
        nights.open()
    assert min(limits) >= 3_600


def test_reading_a_long_walk_keeps_the_lease(nights: Nights, run: OpenRun) -> None:
    """Nobody takes it over for an old heartbeat, however long the statements take."""
    for name, step in reading_all(nights, run).items():
        nights.query("update kaltura.sync_run set heartbeat_at = now() - interval '1 hour'")
        step()
        (ledger,) = nights.query(
            "select heartbeat_at > now() - interval '1 minute' as is_new from kaltura.sync_run"
        )
        assert ledger["is_new"], name


def test_a_run_that_has_lost_its_lease_reads_no_walk(nights: Nights, run: OpenRun) -> None:
    steps = reading_all(nights, run)
    nights.query("update kaltura.sync_run set status = 'abandoned', finished_at = now()")
    for step in steps.values():
        with pytest.raises(LeaseHeld):
            step()
