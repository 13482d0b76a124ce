"""Counts: how many tokens a publication brings into each status, and takes out of it.

By the quarter of an hour in which it happened, because days begin at one in every time zone: what
``upload_token_daily_status`` tells of a day is a sum of few rows, however many tokens there are.
The view ``upload_token_status_count`` derives the same from the moments, for ``verify``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.moments import PENDING, status_name
from etl.warehouse.load.publication_log import of_publication, write_log
from etl.warehouse.schema.database import Database

QUARTER: Final = timedelta(minutes=15)
BEFORE_FIRST: Final = timedelta(hours=48)
"""Longer than any day: so long before the first publication, no day that is told has begun."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = sa.DateTime(timezone=True)


def log_counts(
    connection: sa.Connection, database: Database, run: OpenRun, stamp: datetime
) -> tuple[int, int]:
    """Log what the run's versions and moments, just written, have changed.

    Returns how many rows were written, and how many were meant.
    """
    log = database.tables.upload_token_status_count_log
    moved = _moved(database, run, stamp, _earliest(connection, database, run, stamp))
    tokens, unseen = sa.func.sum(moved.c.tokens), sa.func.sum(moved.c.unseen_tokens)
    key = (moved.c.quarter_hour, moved.c.status, moved.c.status_code)
    counts = (
        sa.select(*key, tokens.label("tokens"), unseen.label("unseen_tokens"))
        .group_by(*key)
        .having(sa.or_(tokens != 0, unseen != 0))
        .cte("counts")
    )
    return write_log(connection, log, run, counts, ("quarter_hour", "status"))


def _earliest(
    connection: sa.Connection, database: Database, run: OpenRun, stamp: datetime
) -> datetime:
    """As of when a token counts whatever happened to it before the account was first read.

    Otherwise the first run would write years of quarters that no day tells.
    """
    sync_run = database.tables.sync_run
    first = connection.scalar(
        sa.select(sync_run.c.published_at)
        .where(sync_run.c.partner_id == run.partner_id, sync_run.c.published_at.is_not(None))
        .order_by(sync_run.c.published_at)
        .limit(1)
    )
    began = stamp if first is None else first
    return began - (began - _EPOCH) % QUARTER - BEFORE_FIRST


def _moved(database: Database, run: OpenRun, stamp: datetime, earliest: datetime) -> sa.Subquery:
    """Each status that tokens came into or left, by quarters of an hour."""
    changes = _changes(database, run, stamp, earliest)
    sightings = _sightings(database, run, stamp, earliest)
    name = status_name(database.tables.upload_token_status, sightings)
    pending = sa.literal("PENDING", sa.Text), sa.literal(PENDING, sa.SmallInteger)
    nothing = sa.literal(0, sa.BigInteger)
    came, left = changes.c.tokens, -changes.c.tokens
    seen, gone = sightings.c.tokens, -sightings.c.tokens
    return sa.union_all(
        _part(changes.c.changed_at, changes.c.to_status, changes.c.to_status_code, came, nothing),
        _part(
            changes.c.changed_at, changes.c.from_status, changes.c.from_status_code, left, nothing
        ),
        _part(sightings.c.changed_at, name, sightings.c.status, seen, nothing),
        # Every token begins as PENDING.
        _part(sightings.c.made_at, *pending, seen, seen),
        _part(sightings.c.changed_at, *pending, gone, gone),
    ).subquery("moved")


def _part(
    at: sa.ColumnElement[Any],
    status: sa.ColumnElement[Any],
    code: sa.ColumnElement[Any],
    tokens: sa.ColumnElement[Any],
    unseen: sa.ColumnElement[Any],
) -> sa.Select[Any]:
    return sa.select(
        at.label("quarter_hour"),
        status.label("status"),
        code.label("status_code"),
        tokens.label("tokens"),
        unseen.label("unseen_tokens"),
    )


def _changes(database: Database, run: OpenRun, stamp: datetime, earliest: datetime) -> sa.CTE:
    """The moments that the run has logged, by statuses and quarter of an hour."""
    log = database.tables.upload_token_status_moment_log
    statuses = ("from_status", "from_status_code", "to_status", "to_status_code")
    return _counted(
        sa.select(
            *[log.c[name] for name in statuses],
            _quarter(log.c.happened_at, earliest).label("changed_at"),
        ).where(of_publication(log, run, stamp)),
        "changes",
    )


def _sightings(database: Database, run: OpenRun, stamp: datetime, earliest: datetime) -> sa.CTE:
    """The tokens that the run has seen first, by status and quarters of an hour."""
    token = database.tables.upload_token
    made_at = sa.func.least(token.c.created_at, token.c.observed_at)
    return _counted(
        sa.select(
            token.c.status,
            _quarter(made_at, earliest).label("made_at"),
            _quarter(token.c.first_happened_at, earliest).label("changed_at"),
        ).where(of_publication(token, run, stamp), token.c.version == 1),
        "sightings",
    )


def _counted(rows: sa.Select[Any], name: str) -> sa.CTE:
    each = rows.subquery("each")
    return sa.select(*each.c, sa.func.count().label("tokens")).group_by(*each.c).cte(name)


def _quarter(moment: sa.ColumnElement[Any], earliest: datetime) -> sa.ColumnElement[Any]:
    return sa.func.date_bin(
        sa.literal(QUARTER, sa.Interval),
        sa.func.greatest(moment, sa.literal(earliest, _TIME)),
        sa.literal(_EPOCH, _TIME),
        type_=_TIME,
    )
