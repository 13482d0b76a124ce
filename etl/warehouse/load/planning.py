"""What keeps the cost of a statement linear in its input, whatever the statistics say.

Statistics come from autovacuum, which does not come during a run: those of the staging table may be
of an empty night, and those of a new account of none.  So the statements of the load leave nothing
to be chosen.  Known tokens are found by index: an interval of createdAt at a time, or one by its
primary key; both in lateral subqueries with an OFFSET or a LIMIT, which the planner does not turn
into another join.  A walk's staging is read in one pass, sorted or grouped, and never joined with
itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

from etl.coverage import Span
from etl.tokens.token import CREATED_SECOND_END, CREATED_SECOND_MIN
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.schema.database import Database

WORK_MEM: Final = "128MB"
"""For the statements that sort or group what a whole walk has staged."""


def intervals(spans: Iterable[Span], *, others: Iterable[Span] = ()) -> sa.FromClause:
    """Times ``lower`` (inclusive) and ``upper`` of each span; ``is_first`` tells the two groups.

    Join it with a lateral subquery that has an OFFSET.  The statement is compiled once, and not for
    each number of intervals.
    """
    first, second = list(spans), list(others)
    every = [*first, *second]
    seconds = (
        sa.func.unnest(
            sa.cast([max(each.lower, CREATED_SECOND_MIN) for each in every], _SECONDS),
            sa.cast([min(each.upper, CREATED_SECOND_END) for each in every], _SECONDS),
            sa.cast([True] * len(first) + [False] * len(second), sa.ARRAY(sa.Boolean)),
        )
        .table_valued(
            sa.column("lower_second", sa.BigInteger),
            sa.column("upper_second", sa.BigInteger),
            sa.column("is_first", sa.Boolean),
        )
        .render_derived(name="seconds")
    )
    return sa.select(
        sa.func.to_timestamp(seconds.c.lower_second).label("lower"),
        sa.func.to_timestamp(seconds.c.upper_second).label("upper"),
        seconds.c.is_first,
    ).subquery("intervals")


_SECONDS = sa.ARRAY(sa.BigInteger)


def known_row(database: Database, run: OpenRun, token_id: sa.ColumnElement[str]) -> sa.FromClause:
    """The known token with this id, fetched by primary key: for a lateral outer join.

    If nothing of the account is known, the index is not even looked at.
    """
    token = database.tables.upload_token
    known: sa.FromClause = (
        sa.select(token)
        .where(
            token.c.partner_id == run.partner_id,
            token.c.token_id == token_id,
            sa.true() if run.baseline.knows_tokens else sa.false(),
        )
        .limit(1)
        .lateral("known")
    )
    return known
