"""Moments: when a token got a status, appeared or disappeared; told once, at publication.

What is told of a change must not change with later runs, so it is kept in
``upload_token_status_moment_log``, and with the versions that it brought: each tells since when the
token has its status or presence (``status_happened_at`` and those beside it).  A first sighting has
neither: what is told of it follows from its version, but for ``first_happened_at``, which that
version keeps.  The view ``upload_token_status_moment`` derives the same from the stored versions,
for ``verify``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by

from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.tables import alias_of

CLOSED: Final = 3
PENDING: Final = 0
_BECAME: Final = (
    *("partner_id", "token_id", "version", "status", "is_listed", "created_at", "valid_from"),
    *("change_kind", "changed_columns", "run_id"),
    *("status_happened_at", "status_happened_after", "status_happened_before"),
)
"""Of the version after."""


def first_happened_at(new: Any) -> sa.ColumnElement[Any]:
    """When a token that is seen for the first time got its status, as far as is known.

    Every token begins as PENDING, and one that was never seen otherwise still was.
    """
    after = sa.func.least(new.c.created_at, new.c.observed_at)
    return sa.case(
        (new.c.status == PENDING, after),
        else_=best_estimate(new.c.updated_at, after, new.c.observed_at),
    )


def first_closed_at(
    known: Any, status: sa.ColumnElement[Any], updated_at: sa.ColumnElement[Any]
) -> sa.ColumnElement[Any]:
    """The least ``updated_at`` of the versions with status CLOSED, a new one included."""
    return sa.func.least(known.c.first_closed_at, sa.case((status == CLOSED, updated_at)))


class Since(NamedTuple):
    """Since when a version has its status or presence; all are NULL if that is not known."""

    version: sa.ColumnElement[Any]
    """The one that brought it."""
    at: sa.ColumnElement[Any]
    after: sa.ColumnElement[Any]
    before: sa.ColumnElement[Any]

    @classmethod
    def of(cls, known: Any) -> Since:
        """What the row of a version tells."""
        is_first = known.c.version == 1

        def told(first: Any, later: str) -> sa.ColumnElement[Any]:
            return sa.case((is_first, first), else_=known.c[later])

        return cls(
            told(1, "status_version"),
            told(known.c.first_happened_at, "status_happened_at"),
            told(sa.func.least(known.c.created_at, known.c.observed_at), "status_happened_after"),
            told(known.c.observed_at, "status_happened_before"),
        )

    def values(self) -> dict[str, sa.ColumnElement[Any]]:
        """By the names of the columns that keep it."""
        return {
            "status_version": self.version,
            "status_happened_at": self.at,
            "status_happened_after": self.after,
            "status_happened_before": self.before,
        }


def since_of_next(
    new: Any, known: Any, last_seen: sa.ColumnElement[Any]
) -> dict[str, sa.ColumnElement[Any]]:
    """Since when the version after ``known`` has its status: of this change, or of an earlier one.

    ``last_seen`` is when the known state was last seen, and NULL if status and presence stay.
    """
    earlier = Since.of(known)
    after = sa.func.least(last_seen, new.c.observed_at)
    before = new.c.observed_at
    estimate = sa.case(
        (new.c.kind == "absent", _middle(after, before)),
        else_=best_estimate(new.c.updated_at, after, before),
    )
    # Two intervals may overlap, by the walk that saw the earlier change: estimates stay in order.
    in_order = sa.func.least(sa.func.greatest(estimate, earlier.at), before)
    changed = last_seen.is_not(None)
    now = Since(known.c.version + 1, in_order, after, before).values()
    return {
        name: sa.case((changed, now[name]), else_=value) for name, value in earlier.values().items()
    }


def changes_status(new: Any, known: Any) -> sa.ColumnElement[bool]:
    """Whether what was resolved gives a known token another status or presence."""
    return sa.and_(
        known.c.token_id.is_not(None),
        sa.or_(
            new.c.kind == "absent",
            sa.not_(known.c.is_listed),
            new.c.status.is_distinct_from(known.c.status),
        ),
    )


def log_moments(
    connection: sa.Connection, database: Database, run: OpenRun, stamp: datetime
) -> int:
    """Log the changes of status and presence that the run has just published; returns how many.

    It reads the versions that the run has replaced, and their successors by key.
    """
    log = database.tables.upload_token_status_moment_log
    was = alias_of(database.tables.upload_token_superseded, "was")
    became = _row(database.tables.upload_token, was, "became")
    earlier = Since.of(was)
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
        "happened_at": became.c.status_happened_at,
        "happened_after": became.c.status_happened_after,
        "happened_before": became.c.status_happened_before,
        "valid_from": became.c.valid_from,
        "run_id": became.c.run_id,
        "created_at": became.c.created_at,
        "from_version": earlier.version,
        "from_happened_at": earlier.at,
        "from_happened_after": earlier.after,
        "from_happened_before": earlier.before,
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
            .select_from(was.join(became, is_moment(became)))
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
        sa.select(*[table.c[name] for name in _BECAME])
        .where(table.c.partner_id == of.c.partner_id, table.c.token_id == of.c.token_id)
        .limit(1)
        .lateral(name)
    )
    return row


def best_estimate(
    updated_at: sa.ColumnElement[Any],
    after: sa.ColumnElement[Any],
    before: sa.ColumnElement[Any],
) -> sa.ColumnElement[Any]:
    """``updated_at`` where it fits: in whole seconds, it may begin before the interval does."""
    return sa.case(
        (fits(updated_at, after, before), sa.func.greatest(updated_at, after)),
        else_=_middle(after, before),
    )


def fits(
    updated_at: sa.ColumnElement[Any],
    after: sa.ColumnElement[Any],
    before: sa.ColumnElement[Any],
) -> sa.ColumnElement[bool]:
    """Whether ``updated_at`` is not before the one moment and not after the other, or NULL."""
    return sa.and_(after - updated_at < timedelta(seconds=1), updated_at <= before)


def _middle(after: sa.ColumnElement[Any], before: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    # In seconds: days would make it depend on the session's time zone.
    half = sa.func.date_part("epoch", before - after, type_=sa.Double) / sa.literal(2.0, sa.Double)
    # Without a zone: to add to a time with one depends on the session, and Citus evaluates on its
    # coordinator what depends on it; an INSERT of what it selects does not survive that.
    begin = sa.func.timezone("UTC", after, type_=sa.DateTime())
    middle = begin + sa.func.make_interval(0, 0, 0, 0, 0, 0, half, type_=sa.Interval)
    return sa.func.timezone("UTC", middle, type_=sa.DateTime(timezone=True))


def status_name(names: sa.Table, version: Any) -> sa.ColumnElement[Any]:
    """As the function of that name tells it; the table of names is read once per statement."""
    codes, all_names = (
        sa.select(sa.func.array_agg(aggregate_order_by(each, names.c.code), type_=sa.ARRAY(kind)))
        .correlate(None)
        .scalar_subquery()
        for each, kind in ((names.c.code, sa.SmallInteger), (names.c.name, sa.Text))
    )
    place = sa.func.array_position(codes, version.c.status, type_=sa.Integer)
    code = sa.cast(version.c.status, sa.Text)
    return sa.func.coalesce(all_names[place], "UNKNOWN_" + code, "UNKNOWN")


def _name_of(names: sa.Table, version: Any) -> sa.ColumnElement[Any]:
    return sa.case((sa.not_(version.c.is_listed), "NOT_LISTED"), else_=status_name(names, version))
