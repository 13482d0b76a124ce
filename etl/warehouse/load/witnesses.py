"""Witnesses: the published runs that have seen the latest version of a token."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy.sql.elements import Grouping

from etl.coverage import EVERYTHING, Coverage, Span
from etl.tokens.token import OPEN_STATUSES
from etl.warehouse.ledger.certificates import walk_began_with
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.tables import alias_of

_RUNS_AT_ONCE: Final = 1_000


class Steps(NamedTuple):
    """A function of createdAt: the start of the last published walk that covered a second.

    It is constant from each second of ``lowers`` to the next one.
    """

    lowers: list[int]
    starts: list[datetime | None]

    @classmethod
    def of(cls, pieces: Iterable[tuple[Span, datetime]]) -> Self:
        """From disjoint spans with their starts; None between them."""
        lowers: list[int] = [EVERYTHING.lower]
        starts: list[datetime | None] = [None]
        for span, start in sorted(pieces):
            for lower, value in ((span.lower, start), (span.upper, None)):
                if lower == lowers[-1]:
                    starts[-1] = value
                else:
                    lowers.append(lower)
                    starts.append(value)
        return cls(lowers, starts)

    def at(self, second: sa.ColumnElement[int]) -> sa.ColumnElement[Any]:
        """The start at a second: a binary search, whatever the number of runs.  Or NULL."""
        step = sa.func.width_bucket(second, sa.cast(self.lowers, sa.ARRAY(sa.BigInteger)))
        # In parentheses: without them, the index would belong to the name of the type.
        times: sa.ColumnElement[Any] = Grouping(
            sa.cast(self.starts, sa.ARRAY(sa.DateTime(timezone=True)))
        )
        return times[step]


class Witnesses(NamedTuple):
    """The last walks over the whole list, and over it or the list of open tokens."""

    listed: Steps
    open: Steps


def load_witnesses(connection: sa.Connection, database: Database, partner_id: int) -> Witnesses:
    """Read the ledger, newest run first, until every second is covered."""
    run = database.tables.sync_run
    first = alias_of(run, "first_run")
    runs = connection.execute(
        sa.select(
            sa.cast(run.c.coverage, sa.Text),
            sa.cast(run.c.open_coverage, sa.Text),
            first.c.started_at,
        )
        .select_from(run.join(first, walk_began_with(first, run)))
        .where(run.c.partner_id == partner_id, run.c.published_at.is_not(None))
        # The order in which their walks started: the lease allows one at a time.
        .order_by(run.c.published_at.desc()),
        execution_options={"yield_per": _RUNS_AT_ONCE},
    )
    whole, either = _Covered(), _Covered()
    with runs:
        for coverage, open_coverage, started_at in runs:
            whole.add(Coverage.from_sql(coverage), started_at)
            either.add(Coverage.from_sql(coverage), started_at)
            either.add(Coverage.from_sql(open_coverage), started_at)
            if whole.coverage.contains_span(EVERYTHING):
                break
    return Witnesses(Steps.of(whole.pieces), Steps.of(either.pieces))


class _Covered:
    """What the runs read so far have covered, and which of them was the last to cover a part."""

    def __init__(self) -> None:
        self.coverage = Coverage()
        self.pieces: list[tuple[Span, datetime]] = []

    def add(self, coverage: Coverage, started_at: datetime) -> None:
        new = [hole for span in coverage for hole in self.coverage.holes(span)]
        if new:
            self.pieces += [(span, started_at) for span in new]
            self.coverage = self.coverage.union(new)


def last_seen_at(
    database: Database, known: Any, partner_id: int, witnesses: Witnesses
) -> sa.ColumnElement[Any]:
    """The last time at which a row of upload_token is known to have been current.

    It is the start of the last published walk that saw it: the one that published its version, or a
    later one that covered its second and does not list it in unobserved_token.  By the arrival of a
    reply the token may have changed already.  The list of open tokens says nothing about others.
    A run that rejected a row is no witness of an absence: the row may have been the token's return.
    """
    unobserved = database.tables.unobserved_token
    published, first = database.tables.sync_run, alias_of(database.tables.sync_run, "first_run")
    # In UTC, because the epoch of a time with a zone counts as depending on the session's zone, and
    # Citus 13 sends an INSERT with such a function to the worker in a form that does not parse.
    in_utc = sa.func.timezone("UTC", known.c.created_at)
    second = sa.cast(sa.func.floor(sa.func.date_part("epoch", in_utc)), sa.BigInteger)
    is_open = sa.and_(known.c.is_listed, known.c.status.in_(OPEN_STATUSES))
    publisher = (
        sa.select(first.c.started_at)
        .select_from(published.join(first, walk_began_with(first, published)))
        .where(published.c.run_id == known.c.run_id, published.c.published_at.is_not(None))
        .correlate(known)
        .scalar_subquery()
    )
    covered = sa.case((is_open, witnesses.open.at(second)), else_=witnesses.listed.at(second))
    was_overlooked = (
        sa.exists()
        .where(unobserved.c.partner_id == partner_id, unobserved.c.token_id == known.c.token_id)
        .correlate(known)
    )
    seen = sa.case(
        (
            sa.or_(sa.not_(known.c.is_listed), was_overlooked),
            _last_that_saw(database, known, partner_id, second, is_open),
        ),
        else_=covered,
    )
    return sa.func.coalesce(sa.func.greatest(publisher, seen), known.c.observed_at)


def _last_that_saw(
    database: Database,
    known: Any,
    partner_id: int,
    second: sa.ColumnElement[int],
    is_open: sa.ColumnElement[bool],
) -> sa.ColumnElement[Any]:
    """For the few that are absent, or that a run did not see: look for the last that did."""
    unobserved = alias_of(database.tables.unobserved_token, "unobserved")
    published = alias_of(database.tables.sync_run, "published")
    first = alias_of(database.tables.sync_run, "first_run")
    overlooked = (
        sa.exists()
        .where(
            unobserved.c.partner_id == partner_id,
            unobserved.c.token_id == known.c.token_id,
            unobserved.c.run_id == published.c.run_id,
        )
        .correlate(known, published)
    )
    return (
        sa.select(first.c.started_at)
        .select_from(published.join(first, walk_began_with(first, published)))
        .where(
            published.c.partner_id == partner_id,
            published.c.published_at.is_not(None),
            sa.or_(
                published.c.coverage.contains(second),
                sa.and_(is_open, published.c.open_coverage.contains(second)),
            ),
            sa.or_(known.c.is_listed, published.c.rejected == 0),
            sa.not_(overlooked),
        )
        .order_by(published.c.published_at.desc())
        .limit(1)
        .correlate(known)
        .scalar_subquery()
    )
