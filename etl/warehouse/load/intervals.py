"""Intervals of createdAt as a relation: one form of a statement for any number of them."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from etl.coverage import Span
from etl.tokens.token import CREATED_SECOND_END, CREATED_SECOND_MIN


def intervals(spans: Iterable[Span], *, others: Iterable[Span] = ()) -> sa.FromClause:
    """Times ``lower`` (inclusive) and ``upper`` of each span; ``is_first`` tells the two groups.

    A lateral join with it reads each interval from an index on created_at, whatever the statistics
    say; and the statement is compiled once, not for each number of intervals.
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
