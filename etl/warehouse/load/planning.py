"""What keeps the cost of a statement linear in its input, whatever the statistics say.

Statistics come from autovacuum, which does not come during a run: those of the staging table may be
of an empty night, and those of a new account of none.  So the statements of the load leave nothing
to be chosen.  Known tokens are found by index: an interval of createdAt at a time, or one by its
primary key; both in lateral subqueries with an OFFSET or a LIMIT, which the planner does not turn
into another join.  A walk's staging is read in one pass, sorted or grouped, and never joined with
itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from etl.coverage import Span
from etl.tokens.token import CREATED_SECOND_END, CREATED_SECOND_MIN, OPEN_STATUSES
from etl.warehouse.engine import SETTINGS, STATEMENT_SECONDS, transaction
from etl.warehouse.ledger.lease import fence
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.schema.database import Database

WORK_MEM: Final = "128MB"
"""For the statements that sort or group what a whole walk has staged."""
SECONDS_PER_ROW: Final = 0.001
"""Added to the limit of such a statement for each row that it may read: some thirty times what all
statements of a first load together take, so that a slow disk has time, and a statement whose cost
is not linear is stopped all the same."""


def whole_walk_seconds(run: OpenRun) -> float:
    """The limit of a statement that reads all that the walk has staged, and what is known of it."""
    rows = run.walk.counts.staged + run.baseline.listed_before
    return STATEMENT_SECONDS + SECONDS_PER_ROW * rows


@contextmanager
def whole_walk(database: Database, run: OpenRun) -> Iterator[sa.Connection]:
    """A transaction of statements that read all that the walk has staged.

    They may take longer than a lease lasts: its row stays locked meanwhile, so that nobody takes
    it over, and has a new heartbeat in the end.  Raises LeaseHeld if the run no longer holds it.
    """
    with transaction(
        database.engine,
        statement_seconds=whole_walk_seconds(run),
        work_mem=WORK_MEM,
        **SETTINGS,
    ) as connection:
        fence(connection, database, run)
        yield connection
        fence(connection, database, run)


def intervals(spans: Iterable[Span], *, others: Iterable[Span] = ()) -> sa.FromClause:
    """Times ``lower`` (inclusive) and ``upper`` of each span; ``is_first`` tells the two groups.

    ``rows_within`` reads them.  The statement is compiled once, whatever the number of intervals.
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


def rows_within(
    parts: sa.FromClause,
    table: sa.Table,
    names: Iterable[str],
    *conditions: sa.ColumnElement[bool],
) -> sa.FromClause:
    """The rows of ``table`` created in each of the ``intervals``: to join with them on true."""
    rows: sa.FromClause = (
        sa.select(*[table.c[name] for name in names])
        .where(
            *conditions,
            table.c.created_at >= parts.c.lower,
            table.c.created_at < parts.c.upper,
        )
        .offset(0)
        .lateral("row_within")
    )
    return rows


def listed_within(
    database: Database,
    partner_id: int,
    parts: sa.FromClause,
    names: Iterable[str],
    *conditions: sa.ColumnElement[bool],
    open_only: bool = False,
) -> sa.FromClause:
    """The known listed tokens in each of the ``intervals``; with ``open_only``, the open ones.

    A few pages of open tokens span years, and the open tokens have an index of their own.
    """
    token = database.tables.upload_token
    return rows_within(
        parts,
        token,
        names,
        token.c.partner_id == partner_id,
        token.c.is_listed,
        token.c.status.in_(OPEN_STATUSES) if open_only else sa.true(),
        *conditions,
    )


def known_row(
    database: Database, run: OpenRun, token_id: sa.ColumnElement[str], names: Iterable[str] = ()
) -> sa.FromClause:
    """The known token with this id, fetched by primary key: for a lateral outer join.

    If nothing of the account is known, the index is not even looked at.  ``names`` are the columns
    that are needed, if not all are: putting the others together costs a small run more than all
    that it reads.
    """
    token = database.tables.upload_token
    known: sa.FromClause = (
        sa.select(*[token.c[name] for name in names or token.c.keys()])
        .where(
            token.c.partner_id == run.partner_id,
            token.c.token_id == token_id,
            sa.true() if run.baseline.knows_tokens else sa.false(),
        )
        .limit(1)
        .lateral("known_row")
    )
    return known


def known_rows(
    database: Database, run: OpenRun, token_ids: Collection[str]
) -> tuple[sa.FromClause, sa.FromClause]:
    """The known ones of these tokens, each by primary key: what to select from, and the rows."""
    text = sa.Text(collation="C")
    ids = (
        sa.func.unnest(sa.cast(sorted(token_ids), sa.ARRAY(text)))
        .table_valued(sa.column("token_id", text))
        .render_derived(name="asked")
    )
    known = known_row(database, run, ids.c.token_id)
    return ids.join(known, sa.true()), known


def in_walk(staging: Any, run: OpenRun) -> sa.ColumnElement[bool]:
    """The rows of staging of the run's walk, whether or not they count for the run."""
    return sa.and_(staging.c.partner_id == run.partner_id, staging.c.walk_id == run.walk.walk_id)


def of_walk(staging: Any, run: OpenRun) -> sa.ColumnElement[bool]:
    """The rows of staging that count for the run: those of its walk.

    An absence is confirmed by a lookup of the same run that publishes it.  So a resumed run ignores
    the answers that earlier runs got, and looks up again what is missing.
    """
    if run.walk.lookups_after is None:
        return in_walk(staging, run)
    after = sa.literal(run.walk.lookups_after, sa.DateTime(timezone=True))
    return sa.and_(
        in_walk(staging, run), sa.or_(~staging.c.from_lookup, staging.c.observed_at > after)
    )
