"""What the logs of a publication share: which rows it has written, and a log's rows for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from etl.warehouse.ledger.run import OpenRun


def of_publication(table: sa.Table, run: OpenRun, stamp: datetime) -> sa.ColumnElement[bool]:
    """The rows that the run has written; by their indexes, which begin with the time."""
    return sa.and_(
        table.c.partner_id == run.partner_id,
        table.c.valid_from == sa.literal(stamp, sa.DateTime(timezone=True)),
        table.c.run_id == run.run_id,
    )


def write_log(
    connection: sa.Connection, log: sa.Table, run: OpenRun, rows: sa.CTE, in_order: Sequence[str]
) -> tuple[int, int]:
    """Write the rows of a publication to a log that has its ``partner_id`` and ``run_id``.

    ``rows`` has the other columns; they are written in the order of those of ``in_order``.  Returns
    how many were written, and how many were meant.
    """
    written = (
        sa.insert(log)
        .from_select(
            ["partner_id", "run_id", *rows.c.keys()],
            sa.select(
                sa.literal(run.partner_id, sa.Integer),
                sa.literal(run.run_id, sa.BigInteger),
                *rows.c,
            ).order_by(*[rows.c[name] for name in in_order]),
        )
        .returning(sa.literal(1))
        .cte("written")
    )
    row = connection.execute(
        sa.select(
            sa.select(sa.func.count()).select_from(written).scalar_subquery(),
            sa.select(sa.func.count()).select_from(rows).scalar_subquery(),
        )
    ).one()
    return row[0], row[1]
