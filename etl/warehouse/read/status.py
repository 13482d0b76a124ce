"""What ``kaltura-etl status`` shows: how fresh the data are, the last nights and runs, tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import sqlalchemy as sa

from etl.warehouse.engine import connect, transaction
from etl.warehouse.ledger.certificates import is_complete
from etl.warehouse.ledger.lease import ended_processes, is_at_work, is_silent
from etl.warehouse.schema.revision import require_current
from etl.warehouse.schema.tables import Tables, build_tables

RUNS_SHOWN: Final = 10
NIGHTS_SHOWN: Final = 7
LEASE_SECONDS: Final = 900.0
"""The default of ETL_LEASE_SECONDS."""

Partners = int | Collection[int] | None
"""One account, some, or all."""


def status_summary(
    url: str, schema: str, partner_id: Partners, *, lease_seconds: float = LEASE_SECONDS
) -> dict[str, list[dict[str, Any]]]:
    """``accounts``, ``last_nights``, ``last_runs`` (newest first) and ``tokens_by_status``: rows.

    For these accounts.  A run that is no longer at work, because its heartbeat is older than
    ``lease_seconds`` or its process was one of this machine and is dead, is shown as what the next
    run marks it: ``abandoned``.  Raises ConfigurationError where the schema is not of this
    program's version.
    """
    engine = connect(url)
    tables = build_tables(schema)
    try:
        with transaction(engine, transaction_read_only="on", row_security="on") as connection:
            require_current(connection, schema)
            dead = _dead_runs(connection, tables.sync_run, partner_id, lease_seconds)
            return {
                "accounts": _rows(connection, _accounts(tables, partner_id, dead)),
                "last_nights": _rows(connection, _last_nights(schema, partner_id)),
                "last_runs": _rows(connection, _last_runs(tables, partner_id, dead)),
                "tokens_by_status": _rows(connection, _tokens_by_status(tables, partner_id)),
            }
    finally:
        engine.dispose()


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, object]]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _of(column: sa.ColumnElement[Any], partner_id: Partners) -> sa.ColumnElement[bool]:
    if isinstance(partner_id, Collection):
        return column.in_(partner_id)
    return sa.true() if partner_id is None else column == partner_id


def _dead_runs(
    connection: sa.Connection, run: sa.Table, partner_id: Partners, lease_seconds: float
) -> list[int]:
    """The runs that are ``running`` in the ledger alone."""
    running = sa.and_(_of(run.c.partner_id, partner_id), is_at_work(run))
    silent = sa.select(run.c.run_id).where(running, is_silent(run, lease_seconds))
    return [*connection.scalars(silent), *ended_processes(connection, run, running)]


def _accounts(tables: Tables, partner_id: Partners, dead: list[int]) -> sa.Select[Any]:
    """The newest run of each kind is looked for by index: a ledger grows for years."""
    run = tables.sync_run
    account = (
        sa.select(run.c.partner_id)
        .where(_of(run.c.partner_id, partner_id))
        .distinct()
        .subquery("account")
    )
    of_account = run.c.partner_id == account.c.partner_id
    published = (
        sa.select(run.c.published_at)
        .where(of_account, run.c.published_at.is_not(None))
        .order_by(run.c.published_at.desc())
        .limit(1)
        .correlate(account)
    )
    fresh = published.lateral("fresh")
    complete = published.where(run.c.status == "succeeded", is_complete(run)).lateral("complete")
    at_work = sa.exists().where(of_account, is_at_work(run), run.c.run_id.not_in(dead))
    return (
        sa.select(
            account.c.partner_id,
            fresh.c.published_at.label("published_at"),
            complete.c.published_at.label("complete_at"),
            _hours_since(fresh.c.published_at).label("age_hours"),
            _hours_since(complete.c.published_at).label("complete_age_hours"),
            at_work.correlate(account).label("running"),
            _state_of_newest(run, account, dead).label("last_run_status"),
        )
        .select_from(
            account.outerjoin(fresh, sa.true()).outerjoin(complete, sa.true()),
        )
        .order_by(account.c.partner_id)
    )


def _state(run: sa.FromClause, dead: list[int]) -> sa.ColumnElement[str]:
    return sa.case((run.c.run_id.in_(dead), "abandoned"), else_=run.c.status)


def _state_of_newest(
    run: sa.Table, account: sa.FromClause, dead: list[int]
) -> sa.ScalarSelect[Any]:
    """As in ``sync_freshness``: of runs that were meant to publish, and began."""
    return (
        sa.select(_state(run, dead))
        .where(run.c.partner_id == account.c.partner_id)
        .where(run.c.status.not_in(("dry_run", "skipped")))
        .order_by(run.c.run_id.desc())
        .limit(1)
        .correlate(account)
        .scalar_subquery()
    )


def _hours_since(time: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(sa.extract("epoch", sa.func.statement_timestamp() - time) / 3600, sa.Double)


def _last_nights(schema: str, partner_id: Partners) -> sa.Select[Any]:
    """The newest days of each account, today's first: a night without any run is one of them."""
    names = (
        *("partner_id", "day", "outcome", "runs", "complete_at", "last_attempt_at", "error_kind"),
    )
    night = sa.table("sync_night", *map(sa.column, names), schema=schema)
    number = sa.func.row_number().over(partition_by=night.c.partner_id, order_by=night.c.day.desc())
    newest = (
        sa.select(*[night.c[name] for name in names], number.label("number"))
        .where(
            _of(night.c.partner_id, partner_id),
            # The newest day is today, in whatever zone, or later: other days need not be read.
            night.c.day >= sa.func.current_date() - NIGHTS_SHOWN,
        )
        .subquery()
    )
    shown: dict[str, sa.ColumnElement[Any]] = {name: newest.c[name] for name in names}
    # A day without a time, and a count: as JSON has them.
    shown["day"] = sa.cast(newest.c.day, sa.Text)
    shown["runs"] = sa.cast(newest.c.runs, sa.BigInteger)
    return (
        sa.select(*[column.label(name) for name, column in shown.items()])
        .where(newest.c.number <= NIGHTS_SHOWN)
        .order_by(newest.c.partner_id, newest.c.number)
    )


def _last_runs(tables: Tables, partner_id: Partners, dead: list[int]) -> sa.Select[Any]:
    run = tables.sync_run
    of_dead = {
        "status": "abandoned",
        "error_kind": "abandoned",
        "error_message": "It is no longer at work; the next run marks it abandoned.",
    }
    names = (
        "run_id",
        "partner_id",
        "mode",
        "status",
        "started_at",
        "finished_at",
        "tokens_read",
        "inserted",
        "changed",
        "absent",
        "relisted",
        "rejected",
        "unreadable",
        "error_kind",
        "error_message",
    )
    return (
        sa.select(
            *[
                sa.case((run.c.run_id.in_(dead), of_dead[name]), else_=run.c[name]).label(name)
                if name in of_dead
                else run.c[name]
                for name in names
            ]
        )
        .where(_of(run.c.partner_id, partner_id))
        .order_by(run.c.run_id.desc())
        .limit(RUNS_SHOWN)
    )


def _tokens_by_status(tables: Tables, partner_id: Partners) -> sa.Select[Any]:
    token, status = tables.upload_token, tables.upload_token_status
    counted = (
        sa.select(
            token.c.partner_id,
            token.c.status,
            sa.func.count().filter(token.c.is_listed).label("listed"),
            sa.func.count().filter(sa.not_(token.c.is_listed)).label("absent"),
        )
        .where(_of(token.c.partner_id, partner_id))
        .group_by(token.c.partner_id, token.c.status)
        .subquery()
    )
    name = sa.func.coalesce(
        status.c.name, sa.literal("UNKNOWN_") + sa.cast(counted.c.status, sa.Text), "UNKNOWN"
    )
    return (
        sa.select(counted.c.partner_id, name.label("status"), counted.c.listed, counted.c.absent)
        .outerjoin_from(counted, status, status.c.code == counted.c.status)
        .order_by(counted.c.partner_id, counted.c.status)
    )
