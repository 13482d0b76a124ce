"""Arrivals: the bytes that a publication shows to have arrived, and when.

Each number of bytes has the quarters of an hour, counted since 1970 (UTC), before and after which
it did not arrive, because days begin at one in every time zone.  So ``upload_bytes_daily`` reads
few rows for a day, however many tokens there are.  What arrived from the same UTC day on shares a
row of ``upload_bytes_arrival_log``: a first load of years writes some hundred rows.  The view
``upload_bytes_arrival`` derives the same from the versions, for ``verify``.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, aggregate_order_by

from etl.coverage import EVERYTHING, Coverage
from etl.tokens.token import OPEN_STATUSES
from etl.warehouse.ledger.certificates import walk_began_with
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.moments import best_estimate, fits
from etl.warehouse.load.publication_log import of_publication, write_log
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.tables import alias_of

QUARTERS_OF_DAY: Final = 96
_QUARTER_SECONDS: Final = 900
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY: Final = date(1970, 1, 1)
_QUARTERS: Final = ("earliest", "latest", "best")
_WAS: Final = (
    *("token_id", "status", "uploaded_size_bytes", "is_listed", "last_listed_at", "run_id"),
)
"""Of the version before."""
_LISTS: Final = {**{name: f"{name}_quarters" for name in _QUARTERS}, "bytes": "bytes"}
"""Of each part of an arrival, the column that lists it."""


def log_arrivals(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    stamp: datetime,
    *,
    first_seen: bool,
    changed: bool,
) -> tuple[int, int]:
    """Log the bytes that the run's versions, just written, have more than those before.

    ``first_seen`` and ``changed`` tell of which kinds there are any.  Returns how many rows were
    written, and how many were meant.
    """
    log = database.tables.upload_bytes_arrival_log
    grown = []
    if first_seen:
        # One by one: hardly two of them have the same three quarters.
        grown.append(sa.select(*_cut(_sightings(database, run, stamp), "sighted").c))
    if changed:
        growth = _cut(_growths(connection, database, run, stamp), "growth")
        quarters = [growth.c[name] for name in _QUARTERS]
        total = sa.cast(sa.func.sum(growth.c.bytes), sa.BigInteger).label("bytes")
        grown.append(sa.select(*quarters, total).group_by(*quarters))
    part = _by_day(sa.union_all(*grown).subquery("grown"))
    in_order = [part.c[name] for name in (*_QUARTERS, "bytes")]
    arrivals = (
        sa.select(
            part.c.is_long,
            part.c.utc_day,
            *[
                sa.func.array_agg(aggregate_order_by(part.c[name], *in_order)).label(column)
                for name, column in _LISTS.items()
            ],
        )
        .group_by(part.c.is_long, part.c.utc_day)
        .cte("arrivals")
    )
    return write_log(connection, log, run, arrivals, ("is_long", "utc_day"))


def _by_day(grown: sa.Subquery) -> sa.Subquery:
    utc_day = sa.literal(_FIRST_DAY, sa.Date).op("+", return_type=sa.Date())(
        grown.c.earliest // QUARTERS_OF_DAY
    )
    is_long = grown.c.latest - grown.c.earliest > QUARTERS_OF_DAY
    named = (is_long.label("is_long"), utc_day.label("utc_day"))
    # Computed once per row.
    return sa.select(*named, *grown.c).offset(0).subquery("part")


def _cut(grown: sa.Subquery, name: str) -> sa.Subquery:
    """Between which quarters of an hour bytes arrived, and in which one, as far as is known."""
    after, updated_at, observed_at = grown.c.after, grown.c.updated_at, grown.c.observed_at
    best = best_estimate(updated_at, after, observed_at)
    # updated_at is a whole second, which is in one quarter.
    latest = sa.case((fits(updated_at, after, observed_at), best), else_=observed_at)
    quarters = [_quarter(moment) for moment in (after, latest, best)]
    return (
        sa.select(
            *[quarter.label(part) for quarter, part in zip(quarters, _QUARTERS, strict=True)],
            grown.c.bytes,
        )
        # Computed once per row.
        .offset(0)
        .subquery(name)
    )


def _quarter(moment: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    # Of a difference, because the epoch of a time with a zone counts as depending on the session's
    # zone: see ``last_seen_at``.
    since = moment - sa.literal(_EPOCH, sa.DateTime(timezone=True))
    seconds = sa.func.date_part("epoch", since, type_=sa.Double)
    return sa.cast(sa.func.floor(seconds / sa.literal(_QUARTER_SECONDS, sa.Double)), sa.Integer)


def _sightings(database: Database, run: OpenRun, stamp: datetime) -> sa.Subquery:
    """The tokens that the run has seen first: all their bytes arrived since they were made."""
    token = database.tables.upload_token
    return (
        sa.select(
            sa.func.least(token.c.created_at, token.c.observed_at).label("after"),
            token.c.updated_at,
            token.c.observed_at,
            token.c.uploaded_size_bytes.label("bytes"),
        )
        .where(
            of_publication(token, run, stamp),
            token.c.version == 1,
            token.c.uploaded_size_bytes > 0,
        )
        .subquery("sighting")
    )


def _growths(
    connection: sa.Connection, database: Database, run: OpenRun, stamp: datetime
) -> sa.Subquery:
    """The other tokens that have grown: since the last published walk that saw the size before."""
    became = database.tables.upload_token
    superseded = database.tables.upload_token_superseded
    was = (
        sa.select(*[superseded.c[name] for name in _WAS])
        .where(
            superseded.c.partner_id == run.partner_id,
            superseded.c.token_id == became.c.token_id,
            superseded.c.version == became.c.version - 1,
        )
        .limit(1)
        .lateral("was")
    )
    known = sa.func.coalesce(was.c.uploaded_size_bytes, 0)
    since = sa.case(
        # No walk sees the size of a token that is not listed, and it may grow all the same.
        (sa.not_(was.c.is_listed), sa.func.coalesce(was.c.last_listed_at, became.c.created_at)),
        else_=sa.func.greatest(
            _publisher_began_at(database, was),
            sa.case(
                (
                    was.c.status.in_(OPEN_STATUSES),
                    _seen_at(connection, database, run, was, open_only=True),
                ),
                else_=_seen_at(connection, database, run, was, open_only=False),
            ),
        ),
    )
    return (
        sa.select(
            sa.func.least(since, became.c.observed_at).label("after"),
            became.c.updated_at,
            became.c.observed_at,
            (became.c.uploaded_size_bytes - known).label("bytes"),
        )
        .select_from(became.join(was, sa.true()))
        .where(
            of_publication(became, run, stamp),
            became.c.version > 1,
            sa.any_(became.c.changed_columns) == "uploaded_size_bytes",
            became.c.uploaded_size_bytes > 0,
            became.c.uploaded_size_bytes > known,
        )
        # Computed once per row.
        .offset(0)
        .subquery("growth")
    )


def _publisher_began_at(database: Database, was: Any) -> sa.ColumnElement[Any]:
    published = alias_of(database.tables.sync_run, "publisher")
    first = alias_of(database.tables.sync_run, "publisher_first")
    return (
        sa.select(first.c.started_at)
        .select_from(published.join(first, walk_began_with(first, published)))
        .where(published.c.run_id == was.c.run_id, published.c.published_at.is_not(None))
        .correlate(was)
        .scalar_subquery()
    )


def _seen_at(
    connection: sa.Connection, database: Database, run: OpenRun, was: Any, *, open_only: bool
) -> sa.ColumnElement[Any]:
    """When the last published walk over all tokens, or all open ones, began, if it saw this one.

    ``witnesses.last_seen_at`` says more of a listed token: the last walk that covered its second,
    whatever else that left out, and of one that was overlooked the last walk that saw it.  Not so
    here, because what is logged must be derived again for all versions at once
    (``upload_bytes_arrival``), where one walk per run is a join, and one per token a search.  So
    bounds are never too narrow, and wide while every run leaves a hole.
    """
    unobserved = database.tables.unobserved_token
    nothing = sa.cast(sa.null(), sa.DateTime(timezone=True))
    walk = _last_walk(connection, database, run, open_only=open_only)
    if walk is None:
        return nothing
    missed = (
        sa.exists()
        .where(
            unobserved.c.partner_id == run.partner_id,
            unobserved.c.token_id == was.c.token_id,
            unobserved.c.run_id == walk.run_id,
        )
        .correlate(was)
    )
    return sa.case((missed, nothing), else_=sa.literal(walk.started_at, sa.DateTime(timezone=True)))


def _last_walk(
    connection: sa.Connection, database: Database, run: OpenRun, *, open_only: bool
) -> sa.Row[int, datetime] | None:
    """The run that published it, and when the walk began."""
    published = database.tables.sync_run
    first = alias_of(published, "first_run")
    read: sa.ColumnElement[Any] = published.c.coverage
    if open_only:
        read = read.op("+", return_type=INT8MULTIRANGE())(published.c.open_coverage)
    everything = sa.cast(Coverage([EVERYTHING]).to_sql(), INT8MULTIRANGE)
    return connection.execute(
        sa.select(published.c.run_id, first.c.started_at)
        .select_from(published.join(first, walk_began_with(first, published)))
        .where(
            published.c.partner_id == run.partner_id,
            published.c.published_at.is_not(None),
            # A case: the planner takes an equality of ranges to be rare, and would sort all runs.
            sa.case((read == everything, sa.true())),
        )
        .order_by(published.c.published_at.desc())
        .limit(1)
    ).one_or_none()
