"""Moments: when a token got a status, appeared or disappeared; told once, at publication.

What is told of a change must not change with later runs, so it is kept in
``upload_token_status_moment_log``.  A first sighting has no row there: what is told of it follows
from its version, but for ``first_happened_at``, which that version keeps.  The view
``upload_token_status_moment`` derives the same from the stored versions, for ``verify``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.witnesses import Witnesses, last_seen_at
from etl.warehouse.schema.database import Database

CLOSED: Final = 3
PENDING: Final = 0


def first_happened_at(new: Any) -> sa.ColumnElement[Any]:
    """When a token that is seen for the first time got its status, as far as is known.

    Every token begins as PENDING, and one that was never seen otherwise still was.
    """
    after = sa.func.least(new.c.created_at, new.c.observed_at)
    return sa.case(
        (new.c.status == PENDING, after),
        else_=_best_estimate(new.c.updated_at, after, new.c.observed_at),
    )


def first_closed_at(
    known: Any, status: sa.ColumnElement[Any], updated_at: sa.ColumnElement[Any]
) -> sa.ColumnElement[Any]:
    """The least ``updated_at`` of the versions with status CLOSED, a new one included."""
    return sa.func.least(known.c.first_closed_at, sa.case((status == CLOSED, updated_at)))


def log_moments(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    witnesses: Witnesses,
    stamp: datetime,
) -> int:
    """Log the changes of status and presence that the run has just published; returns how many.

    It reads the versions that the run has replaced, and their successors by key.
    """
    log = database.tables.upload_token_status_moment_log
    was = database.tables.upload_token_superseded.alias("was")
    became = _row(database.tables.upload_token, was, "became")
    before = sa.func.coalesce(became.c.absence_confirmed_at, became.c.observed_at)
    bounds = (
        sa.select(
            sa.func.least(last_seen_at(database, was, run.partner_id, witnesses), before).label(
                "happened_after"
            ),
            before.label("happened_before"),
        )
        .correlate(was, became)
        # Computed once per row.
        .offset(0)
        .lateral("bounds")
    )
    names = database.tables.upload_token_status
    values: dict[str, Any] = {
        "partner_id": became.c.partner_id,
        "token_id": became.c.token_id,
        "version": became.c.version,
        "from_status": _name_of(names, was),
        "to_status": _name_of(names, became),
        "from_status_code": sa.case((was.c.is_listed, was.c.status)),
        "to_status_code": sa.case((became.c.is_listed, became.c.status)),
        "change_kind": became.c.change_kind,
        "happened_at": sa.case(
            (
                became.c.is_listed,
                _best_estimate(
                    became.c.updated_at, bounds.c.happened_after, bounds.c.happened_before
                ),
            ),
            else_=_middle(bounds.c.happened_after, bounds.c.happened_before),
        ),
        "happened_after": bounds.c.happened_after,
        "happened_before": bounds.c.happened_before,
        "from_happened_at": _happened_before(database, was),
        "valid_from": became.c.valid_from,
        "run_id": became.c.run_id,
    }
    replaced = sa.and_(
        was.c.partner_id == run.partner_id,
        was.c.valid_to == sa.literal(stamp, sa.DateTime(timezone=True)),
        was.c.superseded_by_run_id == run.run_id,
    )
    done = connection.execute(
        sa.insert(log).from_select(
            list(values),
            sa.select(*[value.label(name) for name, value in values.items()])
            .select_from(was.join(became, is_moment(became)).join(bounds, sa.true()))
            .where(replaced),
        ),
        execution_options={"preserve_rowcount": True},
    )
    return int(done.rowcount)


def is_moment(became: Any) -> sa.ColumnElement[bool]:
    """Whether a version, which is not the first one, has another status or presence."""
    return sa.or_(
        became.c.change_kind.in_(("absent", "relisted")),
        sa.and_(became.c.change_kind == "changed", sa.any_(became.c.changed_columns) == "status"),
    )


def _row(table: sa.Table, of: Any, name: str) -> sa.FromClause:
    """The row of the same token, by primary key."""
    row: sa.FromClause = (
        sa.select(table)
        .where(table.c.partner_id == of.c.partner_id, table.c.token_id == of.c.token_id)
        .limit(1)
        .lateral(name)
    )
    return row


def _best_estimate(
    updated_at: sa.ColumnElement[Any],
    after: sa.ColumnElement[Any],
    before: sa.ColumnElement[Any],
) -> sa.ColumnElement[Any]:
    """``updated_at`` where it fits: in whole seconds, it may begin before the interval does."""
    return sa.case(
        (
            sa.and_(updated_at + timedelta(seconds=1) > after, updated_at <= before),
            sa.func.greatest(updated_at, after),
        ),
        else_=_middle(after, before),
    )


def _middle(after: sa.ColumnElement[Any], before: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    # In seconds: days would make it depend on the session's time zone.
    half = sa.func.date_part("epoch", before - after, type_=sa.Double) / sa.literal(2.0, sa.Double)
    return after + sa.func.make_interval(0, 0, 0, 0, 0, 0, half, type_=sa.Interval)


def _name_of(names: sa.Table, version: Any) -> sa.ColumnElement[Any]:
    name = (
        sa.select(names.c.name)
        .where(names.c.code == version.c.status)
        .correlate(version)
        .scalar_subquery()
    )
    code = sa.cast(version.c.status, sa.Text)
    return sa.case(
        (sa.not_(version.c.is_listed), "NOT_LISTED"),
        else_=sa.func.coalesce(name, "UNKNOWN_" + code, "UNKNOWN"),
    )


def _happened_before(database: Database, was: Any) -> sa.ColumnElement[Any]:
    """``happened_at`` of the change before: of the log, or of the first sighting."""
    log = database.tables.upload_token_status_moment_log.alias("moment")
    first = database.tables.upload_token_superseded.alias("first")
    logged = (
        sa.select(log.c.happened_at)
        .where(
            log.c.partner_id == was.c.partner_id,
            log.c.token_id == was.c.token_id,
            log.c.version <= was.c.version,
        )
        .order_by(log.c.version.desc())
        .limit(1)
        .correlate(was)
        .scalar_subquery()
    )
    sighted = (
        sa.select(first.c.first_happened_at)
        .where(
            first.c.partner_id == was.c.partner_id,
            first.c.token_id == was.c.token_id,
            first.c.version == 1,
        )
        .correlate(was)
        .scalar_subquery()
    )
    return sa.case(
        (was.c.version == 1, was.c.first_happened_at), else_=sa.func.coalesce(logged, sighted)
    )
