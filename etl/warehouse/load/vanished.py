"""Fields that have vanished: known tokens had a value, and the rows of the walk have none.

A service that renames a field leaves no other trace: each row is a good one without it.  A value
that cannot be used is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from etl.tokens.keys import VALUE_KEYS, reasons_of
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.compare import KEPT_WHEN_ABSENT
from etl.warehouse.load.planning import known_row, whole_walk
from etl.warehouse.load.resolve import AuditCounts, looked_at_of, resolved
from etl.warehouse.schema.database import Database

LACKING_AT_LEAST: Final = 100
"""Fewer tokens that lack a key are no sign of anything."""
_COLUMNS: Final = tuple(key.column for key in VALUE_KEYS.values())


class Vanished(NamedTuple):
    """A field that most of the known tokens which had it now lack."""

    field: str
    """Its key, as the service calls it."""
    lacking: int
    """Tokens whose row has no value, or one that cannot be used."""
    of: int
    """Of so many tokens that were known with a value, and are listed; or that were read."""

    def if_most(self) -> Vanished | None:
        """None unless they are more than half of them, and enough to be a sign."""
        is_sign = self.lacking >= LACKING_AT_LEAST and 2 * self.lacking > self.of
        return self if is_sign else None


def vanished_fields(database: Database, run: OpenRun, counts: AuditCounts) -> list[Vanished]:
    """The fields that more than half of the tokens lack, and at least ``LACKING_AT_LEAST``.

    They are those of the tokens known with a value; or of all that were read, known or not, if
    their values cannot be used.  A field whose known value an absent one does not erase
    (``KEPT_WHEN_ABSENT``) may be absent: its user was deleted.
    """
    if counts.changed + counts.partly_loaded + counts.stateless < LACKING_AT_LEAST:
        return []
    with whole_walk(database, run) as connection:
        absent, gone = _absent(connection, database, run)
        lost, spoilt = _unusable(connection, database, run)
        lacking = {name: absent[name] + lost[name] for name in _COLUMNS}
        if max(*lacking.values(), *spoilt.values()) < LACKING_AT_LEAST:
            return []
        known = _known(connection, database, run)
    return [
        found
        for key, (column, _) in VALUE_KEYS.items()
        if (
            found := Vanished(key, lacking[column], known[column] - gone[column]).if_most()
            or Vanished(key, spoilt[column], counts.tokens_read).if_most()
        )
    ]


def _absent(
    connection: sa.Connection, database: Database, run: OpenRun
) -> tuple[dict[str, int], dict[str, int]]:
    """Of each column: known values that the outcomes of the walk lack, and those of absent tokens.

    One pass over staging, as when the outcomes are counted.
    """
    new = resolved(database, run)
    known = known_row(database, run, new.c.token_id, ("is_listed", *_COLUMNS))
    is_absent = new.c.kind == "absent"

    def lost(name: str) -> sa.ColumnElement[bool]:
        if name in KEPT_WHEN_ABSENT:
            return sa.false()
        return sa.and_(~is_absent, new.c[name].is_(None), known.c[name].is_not(None))

    row = connection.execute(
        sa.select(
            *[sa.func.count().filter(lost(name)) for name in _COLUMNS],
            *[sa.func.count(known.c[name]).filter(is_absent) for name in _COLUMNS],
        )
        .select_from(new.join(known, sa.true()))
        .where(known.c.is_listed)
    ).one()
    return _by_column(row[: len(_COLUMNS)]), _by_column(row[len(_COLUMNS) :])


def _unusable(
    connection: sa.Connection, database: Database, run: OpenRun
) -> tuple[dict[str, int], dict[str, int]]:
    """Of each column: known values whose row has one that cannot be used, and all such rows."""
    rejected = database.tables.rejected_row
    odd = (
        sa.select(rejected.c.token_id, rejected.c.reason)
        .where(rejected.c.run_id == run.run_id)
        .distinct()
        .subquery("odd")
    )
    known = known_row(database, run, odd.c.token_id, ("is_listed", *_COLUMNS))
    is_unusable = {
        column: odd.c.reason == sa.any_(sa.cast(reasons_of(key), sa.ARRAY(sa.Text)))
        for key, (column, _) in VALUE_KEYS.items()
    }
    row = connection.execute(
        sa.select(
            *[
                sa.func.count(known.c[name]).filter(is_unusable[name], known.c.is_listed)
                for name in _COLUMNS
            ],
            *[sa.func.count().filter(is_unusable[name]) for name in _COLUMNS],
        ).select_from(odd.outerjoin(known, sa.true()))
    ).one()
    return _by_column(row[: len(_COLUMNS)]), _by_column(row[len(_COLUMNS) :])


def _known(connection: sa.Connection, database: Database, run: OpenRun) -> dict[str, int]:
    """Of each column: known values of the tokens that the run looked at."""
    parts: Iterator[Any] = looked_at_of(database, run, *_COLUMNS)
    looked_at = reduce(sa.union_all, parts).subquery("looked_at")
    row = connection.execute(sa.select(*[sa.func.count(looked_at.c[name]) for name in _COLUMNS]))
    return _by_column(row.one())


def _by_column(values: Any) -> dict[str, int]:
    return dict(zip(_COLUMNS, values, strict=True))
