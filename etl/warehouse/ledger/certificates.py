"""What the published runs have read: the last complete certificate, and the watermark.

Everything here follows from the coverage in the ledger, never from the mode of a run, except that
a run of the mode ``incremental`` is known to have begun below the watermark of its time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, INT8RANGE, JSONB

from etl.coverage import TOLERATED, Span
from etl.tokens.token import OPEN_STATUSES
from etl.warehouse.engine import SETTINGS, transaction
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.tables import alias_of

LOOKBACK: Final = timedelta(hours=2)
"""createdAt is a wall clock: when it is set back in autumn, new tokens appear an hour old."""

_IDS_AT_ONCE: Final = 1_000


class Complete(NamedTuple):
    """The last published run that read the whole account."""

    run_id: int
    published_at: datetime
    age: timedelta
    """By the database's clock."""


def walk_began_with(first: Any, run: Any) -> sa.ColumnElement[bool]:
    """Whether ``first`` is the first run of the walk of ``run``; both are ``sync_run``, or aliases.

    By the account as well: a table may be distributed by it.
    """
    return sa.and_(first.c.partner_id == run.c.partner_id, first.c.run_id == run.c.walk_id)


def is_complete(run: Any) -> sa.ColumnElement[bool]:
    """Whether a row of ``sync_run`` covers everything except its tolerated holes.

    ``run`` is the table or an alias.  Holes of the list of open tokens do not count.
    """
    holes = sa.func.jsonb_array_elements(run.c.holes).table_valued(sa.column("value", JSONB))
    hole = holes.c.value
    stated = (
        sa.select(sa.func.range_agg(sa.cast(hole.op("->>")("span"), INT8RANGE)))
        .select_from(holes)
        .where(
            hole.op("->>")("reason").in_(TOLERATED),
            hole.op("->")("open_only").is_(None),
        )
        .correlate(run)
        .scalar_subquery()
    )
    nothing = sa.cast(sa.literal("{}"), INT8MULTIRANGE)
    everything = sa.cast(sa.literal("{(,)}"), INT8MULTIRANGE)
    settled = sa.cast(run.c.coverage.op("+")(sa.func.coalesce(stated, nothing)), INT8MULTIRANGE)
    # Most runs have no holes to be added up.  A case: the planner takes an equality of ranges to be
    # rare, and would sort all runs.
    return sa.case(
        (run.c.coverage == everything, sa.true()),
        (run.c.holes != sa.literal([], JSONB), settled == everything),
        else_=sa.false(),
    )


def last_complete(database: Database, partner_id: int) -> Complete | None:
    """The last published run of the account that read all of it."""
    run = database.tables.sync_run
    age = (sa.func.statement_timestamp() - run.c.published_at).label("age")
    with transaction(database.engine, **SETTINGS) as connection:
        found = connection.execute(
            of_last_complete(run, partner_id, run.c.run_id, run.c.published_at, age)
        ).one_or_none()
    return None if found is None else Complete(*found)


def of_last_complete(run: Any, partner_id: int, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """These columns of the run of ``last_complete``; ``run`` is ``sync_run``, or an alias."""
    return (
        sa.select(*columns)
        .where(run.c.partner_id == partner_id, run.c.published_at.is_not(None), is_complete(run))
        .order_by(run.c.run_id.desc())  # the lease makes it the order of publishing
        .limit(1)
    )


def watermark(database: Database, partner_id: int) -> int | None:
    """The second up to which published runs have read the account without a gap; None: none.

    It is the newest createdAt of a listed token that is not after the start of the last run that
    read the list up to its end without leaving a gap: a complete run, or an incremental one after
    it.  An incremental run has to read everything created later, and ``LOOKBACK`` before it.  A
    backfill that reaches the end does not count: what lies before its range may be unread.
    """
    tables = database.tables
    run, first, base = (
        tables.sync_run,
        alias_of(tables.sync_run, "first_run"),
        alias_of(tables.sync_run, "base"),
    )
    token = tables.upload_token
    mode = sa.func.coalesce(run.c.overrides.op("->>")("replayed_mode"), run.c.mode)
    follows_a_complete_run = sa.exists().where(
        base.c.partner_id == partner_id,
        base.c.run_id < run.c.run_id,
        base.c.published_at.is_not(None),
        is_complete(base),
    )
    began = (
        sa.select(first.c.started_at)
        .select_from(run.join(first, walk_began_with(first, run)))
        .where(
            run.c.partner_id == partner_id,
            run.c.published_at.is_not(None),
            sa.func.upper_inf(run.c.coverage),
            sa.or_(is_complete(run), sa.and_(mode == "incremental", follows_a_complete_run)),
        )
        .order_by(run.c.run_id.desc())  # the lease makes it the order of publishing
        .limit(1)
        .scalar_subquery()
    )
    with transaction(database.engine, **SETTINGS) as connection:
        newest = connection.scalar(
            sa.select(sa.func.max(token.c.created_at)).where(
                token.c.partner_id == partner_id, token.c.is_listed, token.c.created_at <= began
            )
        )
    return None if newest is None else math.floor(newest.timestamp())


def last_total_count(database: Database, partner_id: int) -> int | None:
    """The length of the list at the end of the last published run that was told it: a hint."""
    run = database.tables.sync_run
    with transaction(database.engine, **SETTINGS) as connection:
        found: int | None = connection.scalar(
            sa.select(run.c.total_count_last)
            .where(
                run.c.partner_id == partner_id,
                run.c.published_at.is_not(None),
                run.c.total_count_last.is_not(None),
            )
            .order_by(run.c.run_id.desc())
            .limit(1)
        )
    return found


def known_tokens(
    database: Database,
    partner_id: int,
    range_from: datetime | None = None,
    range_to: datetime | None = None,
    *,
    open_only: bool = False,
) -> int:
    """How many tokens of a range (both ends inclusive) are known as listed, and as open with
    ``open_only``: a hint at its size."""
    token = database.tables.upload_token
    conditions = [*is_listed(token, partner_id, open_only=open_only)]
    if range_from is not None:
        conditions.append(token.c.created_at >= range_from)
    if range_to is not None:
        conditions.append(token.c.created_at < range_to + timedelta(seconds=1))
    with transaction(database.engine, **SETTINGS) as connection:
        counted = connection.scalar(
            sa.select(sa.func.count()).select_from(token).where(*conditions)
        )
    return int(counted or 0)


def listed_ids(
    database: Database, partner_id: int, seconds: Span, *, open_only: bool = False
) -> list[str]:
    """The ids of the tokens that are known as listed, and as open with ``open_only``, and were
    created in these seconds; sorted."""
    token = database.tables.upload_token
    ids = (
        sa.select(token.c.token_id)
        .where(
            *is_listed(token, partner_id, open_only=open_only),
            token.c.created_at >= datetime.fromtimestamp(seconds.lower, UTC),
            token.c.created_at < datetime.fromtimestamp(seconds.upper, UTC),
        )
        .order_by(token.c.token_id)
    )
    with transaction(database.engine, **SETTINGS) as connection:
        return list(connection.scalars(ids))


def is_listed(
    token: sa.Table, partner_id: int, *, open_only: bool
) -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions for the known tokens that are listed, and open with ``open_only``."""
    is_open = token.c.status.in_(OPEN_STATUSES) if open_only else sa.true()
    return token.c.partner_id == partner_id, token.c.is_listed, is_open


def unknown_ids(database: Database, partner_id: int, token_ids: Sequence[str]) -> list[str]:
    """Those of the ids that no version of any token has, in the given order."""
    token = database.tables.upload_token
    known: set[str] = set()
    with transaction(database.engine, **SETTINGS) as connection:
        for begin in range(0, len(token_ids), _IDS_AT_ONCE):
            some = token_ids[begin : begin + _IDS_AT_ONCE]
            known.update(
                connection.scalars(
                    sa.select(token.c.token_id).where(
                        token.c.partner_id == partner_id, token.c.token_id.in_(some)
                    )
                )
            )
    return [token_id for token_id in token_ids if token_id not in known]
