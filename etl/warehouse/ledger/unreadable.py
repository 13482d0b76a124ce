"""The rows that earlier runs could not read, so that the next one goes straight to them.

The ledger has their holes, which begin and end with the seconds of the rows beside them and say how
many rows of the first second come before them; ``upload_token`` has the rows before.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INT8RANGE, JSONB

from etl.coverage import NEGATIVE_INFINITY, POSITIVE_INFINITY, UNREADABLE, Span
from etl.warehouse.engine import SETTINGS, transaction
from etl.warehouse.ledger.certificates import is_listed, of_last_complete
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.tables import alias_of

HOLES_AT_MOST: Final = 50
"""Of more holes, the newest are remembered."""


class UnreadableRows(NamedTuple):
    """``rows`` unreadable rows of a hole, behind ``after`` rows of its first second (None: behind
    all of them).

    ``before`` are the seconds of the last listed tokens up to the first second of the hole, in
    ascending order; ``from_start`` if no older ones are known.
    """

    hole: Span
    rows: int
    after: int | None
    before: tuple[int, ...]
    from_start: bool


def unreadable_rows(
    database: Database, partner_id: int, *, tokens_before: int, open_only: bool = False
) -> list[UnreadableRows]:
    """The rows that could not be read since the list was last read to its end, by that run or a
    later one, published or not; with ``open_only``, those of the list of open tokens.

    ``tokens_before`` is how many tokens before each of them are wanted.
    """
    run, complete = database.tables.sync_run, alias_of(database.tables.sync_run, "complete")
    last_complete = of_last_complete(complete, partner_id, complete.c.run_id).scalar_subquery()
    holes = sa.func.jsonb_array_elements(run.c.holes).table_valued(sa.column("value", JSONB))
    hole = holes.c.value
    span = sa.cast(hole.op("->>")("span"), INT8RANGE)
    tokens, after = (sa.cast(hole.op("->>")(name), sa.BigInteger) for name in ("tokens", "after"))
    is_of_open = hole.op("->")("open_only").is_not(None)
    newest = sa.func.max(run.c.run_id)
    stored = (
        sa.select(sa.func.lower(span), sa.func.upper(span), tokens, after)
        .select_from(run.join(holes, sa.true()))
        .where(
            run.c.partner_id == partner_id,
            run.c.run_id >= sa.func.coalesce(last_complete, 0),
            hole.op("->>")("reason") == UNREADABLE,
            tokens > 0,
            is_of_open if open_only else sa.not_(is_of_open),
        )
        .group_by(span, tokens, after)
        .order_by(newest.desc(), span)
        .limit(HOLES_AT_MOST)
    )
    found = []
    with transaction(database.engine, **SETTINGS) as connection:
        for lower, upper, rows, behind in connection.execute(stored).all():
            hole_span = Span(
                NEGATIVE_INFINITY if lower is None else lower,
                POSITIVE_INFINITY if upper is None else upper,
            )
            before: list[int] = []
            if lower is not None:
                before = _seconds_before(
                    connection, database, partner_id, hole_span, tokens_before, open_only
                )
                if not before:
                    continue  # nothing tells where it is
            found.append(
                UnreadableRows(hole_span, rows, behind, tuple(before), len(before) < tokens_before)
            )
    return found


def _seconds_before(
    connection: sa.Connection,
    database: Database,
    partner_id: int,
    hole: Span,
    tokens: int,
    open_only: bool,
) -> list[int]:
    token = database.tables.upload_token
    newest_first = (
        sa.select(token.c.created_at)
        .where(
            *is_listed(token, partner_id, open_only=open_only),
            token.c.created_at < datetime.fromtimestamp(hole.lower + 1, UTC),
        )
        .order_by(token.c.created_at.desc())
        .limit(tokens)
    )
    return [int(created.timestamp()) for created in connection.scalars(newest_first)][::-1]
