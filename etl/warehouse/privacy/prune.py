"""Pruning: rows older than the retention are deleted, in small transactions, and recorded.

The record is made in the transaction that deletes: a check that misses a row can tell whether it
was pruned.  How many pages and rejected rows of a run were deleted is in its row of ``sync_run``
(``pages_pruned``, ``rejected_pruned``); ``kaltura-etl prune`` records in the table ``pruning`` as
well, which is the only record of deleted versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from etl.process.stop import Stop
from etl.resources import program_version
from etl.warehouse.engine import lock_until_commit, require_row_count, transaction
from etl.warehouse.ledger.resume import is_past_resuming
from etl.warehouse.privacy.rights import missing_rights, require_rights
from etl.warehouse.schema.database import Database

VERSIONS_AT_ONCE: Final = 20_000
RUNS_AT_ONCE: Final = 100
STATEMENT_SECONDS: Final = 600
PRUNER_PRIVILEGES: Final = {
    "pages": ("sync_page", "DELETE"),
    "rejected": ("rejected_row", "DELETE"),
    "versions": ("upload_token_superseded", "DELETE"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was, or would be, deleted of one account."""

    partner_id: int
    kind: str
    """pages, rejected or versions."""
    horizon: datetime
    """Runs that began before it, or versions that were valid until before it."""
    rows: int


def prune(
    database: Database,
    *,
    days: dict[str, int],
    partner_id: int | None,
    apply: bool,
    stop: Stop | None = None,
) -> list[Pruned]:
    """Delete older rows, or count them; ``days`` by kind: a kind that is not in it is kept.

    For one account, or for all.  Latest versions are never deleted.  After an interruption between
    two transactions, the next call deletes the rest.

    Raises:
        CredentialsRefused: the role may not delete, or may not record it.
    """
    sync_run = database.tables.sync_run
    with transaction(database.engine) as connection:
        if apply:
            require_rights(
                connection,
                database,
                _wanted(days),
                to="prune",
                advice="Prune as the role that owns the tables (the one that runs kaltura-etl "
                "migrate); the nightly run itself deletes old pages and rejected rows.",
            )
        now = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        accounts = connection.scalars(
            sa.select(sync_run.c.partner_id).distinct().order_by(sync_run.c.partner_id)
        ).all()
    pruned = []
    for account in accounts:
        if partner_id not in (None, account):
            continue
        for kind in ("pages", "rejected", "versions"):
            if kind in days:
                horizon = now - timedelta(days=days[kind])
                pruner = _Pruner(database, account, kind, horizon, apply=apply)
                rows = 0
                for deleted in pruner.run():
                    rows += deleted
                    if stop is not None:
                        stop.check()
                pruned.append(Pruned(partner_id=account, kind=kind, horizon=horizon, rows=rows))
    return pruned


def _wanted(kinds: Iterable[str]) -> list[tuple[str, str]]:
    return [
        *[PRUNER_PRIVILEGES[kind] for kind in kinds],
        *[("upload_token_status_moment_log", "DELETE") for kind in kinds if kind == "versions"],
        *[("sync_run", "UPDATE") for kind in kinds if kind != "versions"],
        ("pruning", "INSERT"),
    ]


def missing_to_prune(database: Database) -> list[str]:
    """What the role lacks for ``prune`` of every kind."""
    with transaction(database.engine) as connection:
        return missing_rights(connection, database, _wanted(PRUNER_PRIVILEGES))


def prune_old_pages(database: Database, keep_pages_days: float) -> int:
    """Delete pages and rejected rows of ended runs that began longer ago; returns rows deleted.

    The nightly pruning, of every account; a failed run keeps what the next one may resume from.
    A bounded number of runs per call, oldest first, each in its own transaction.
    """
    sync_run = database.tables.sync_run
    pruned = (database.tables.sync_page, database.tables.rejected_row)
    # Found by index: a year of runs every five minutes has a hundred thousand before it.
    oldest_left = sa.func.least(
        *[sa.select(sa.func.min(table.c.run_id)).scalar_subquery() for table in pruned]
    )
    deleted = 0
    with transaction(database.engine) as connection:
        old = connection.scalars(
            sa.select(sync_run.c.run_id)
            .where(
                sync_run.c.run_id >= oldest_left,
                sync_run.c.started_at
                < sa.func.statement_timestamp() - timedelta(days=keep_pages_days),
                is_past_resuming(sync_run),
                sa.or_(
                    *[sa.exists().where(table.c.run_id == sync_run.c.run_id) for table in pruned]
                ),
            )
            .order_by(sync_run.c.run_id)
            .limit(RUNS_AT_ONCE)
        ).all()
    for run_id in old:
        with transaction(database.engine) as connection:
            for table in pruned:
                deleted += _delete_of_run(connection, database, table, run_id)
    return deleted


def lock_prunes(connection: sa.Connection, database: Database) -> None:
    """Let one prune at a time delete, so that what was counted is what is deleted."""
    lock_until_commit(connection, f"kaltura-etl {database.schema} prune")


def _delete_of_run(
    connection: sa.Connection, database: Database, table: sa.Table, run_id: int
) -> int:
    """Delete the pages or the rejected rows of a run and count them in its row; returns how many.

    What a check will miss is what was really there: rows lost before stay lost.
    Raises DataRefused if some remain.
    """
    lock_prunes(connection, database)
    sync_run, of_run = database.tables.sync_run, table.c.run_id == run_id
    meant = connection.scalar(sa.select(sa.func.count()).select_from(table).where(of_run)) or 0
    if not meant:
        return 0
    pruned, counted = sync_run.c.pages_pruned, meant
    if table is database.tables.rejected_row:
        # As ``sync_run.rejected`` counts them: a page that was read twice shows the row twice.
        rows = sa.select(table.c.token_id, table.c.reason, table.c.created_second).where(of_run)
        distinct = sa.select(sa.func.count()).select_from(rows.distinct().subquery())
        pruned, counted = sync_run.c.rejected_pruned, connection.scalar(distinct) or 0
    done = connection.execute(sa.delete(table).where(of_run))
    require_row_count(table.name, changed=done.rowcount, meant=meant)
    recorded = connection.execute(
        sa.update(sync_run).where(sync_run.c.run_id == run_id).values({pruned: pruned + counted})
    )
    require_row_count(sync_run.name, changed=recorded.rowcount, meant=1)
    return meant


class _Pruner:
    """One kind of rows of one account."""

    def __init__(
        self, database: Database, partner_id: int, kind: str, horizon: datetime, *, apply: bool
    ) -> None:
        self._database = database
        self._partner_id = partner_id
        self._kind = kind
        self._horizon = horizon
        self._apply = apply

    def run(self) -> Iterator[int]:
        """Rows deleted (or counted) by each transaction."""
        if self._kind == "versions":
            return self._prune_versions() if self._apply else self._count_versions()
        return self._prune_runs()

    def _prune_runs(self) -> Iterator[int]:
        tables = self._database.tables
        table = tables.sync_page if self._kind == "pages" else tables.rejected_row
        runs = self._old_runs(table)
        with transaction(self._database.engine, statement_seconds=STATEMENT_SECONDS) as connection:
            if not self._apply:
                of_runs = sa.select(sa.func.count()).where(table.c.run_id.in_(runs))
                yield connection.scalar(of_runs) or 0
                return
            old = connection.scalars(runs).all()
        for run_id in old:
            # All of a run or nothing: a part of its pages would not add up to its coverage.
            with transaction(
                self._database.engine, statement_seconds=STATEMENT_SECONDS
            ) as connection:
                deleted = _delete_of_run(connection, self._database, table, run_id)
                self._record(connection, deleted)
            yield deleted

    def _old_runs(self, table: sa.Table) -> sa.Select[Any]:
        sync_run = self._database.tables.sync_run
        return (
            sa.select(sync_run.c.run_id)
            .where(
                sync_run.c.partner_id == self._partner_id,
                sync_run.c.started_at < self._horizon,
                is_past_resuming(sync_run),
                sa.exists().where(table.c.run_id == sync_run.c.run_id),
            )
            .order_by(sync_run.c.run_id)
        )

    def _count_versions(self) -> Iterator[int]:
        with transaction(self._database.engine, statement_seconds=STATEMENT_SECONDS) as connection:
            superseded = self._database.tables.upload_token_superseded
            counted = sa.select(sa.func.count()).where(*self._old_versions(superseded))
            yield connection.scalar(counted) or 0

    def _prune_versions(self) -> Iterator[int]:
        """In the order of ids and versions, so that the remaining versions never have a gap.

        The moments that they brought go with them; what later ones tell of them stays.
        """
        superseded = self._database.tables.upload_token_superseded
        log = self._database.tables.upload_token_status_moment_log
        after: tuple[str, int] | None = None
        while True:
            with transaction(
                self._database.engine, statement_seconds=STATEMENT_SECONDS
            ) as connection:
                lock_prunes(connection, self._database)
                key = sa.tuple_(superseded.c.token_id, superseded.c.version)
                meant = connection.execute(
                    sa.select(superseded.c.token_id, superseded.c.version)
                    .where(
                        *self._old_versions(superseded),
                        sa.true() if after is None else key > sa.tuple_(*after),
                    )
                    .order_by(superseded.c.token_id, superseded.c.version)
                    .limit(VERSIONS_AT_ONCE)
                ).all()
                if not meant:
                    return
                token_ids, versions = zip(*meant, strict=True)
                some = (
                    sa.func.unnest(
                        sa.cast(list(token_ids), sa.ARRAY(sa.Text(collation="C"))),
                        sa.cast(list(versions), sa.ARRAY(sa.Integer)),
                    )
                    .table_valued("token_id", "version")
                    .render_derived()
                )
                gone = connection.execute(
                    sa.delete(superseded).where(
                        superseded.c.partner_id == self._partner_id,
                        superseded.c.token_id == some.c.token_id,
                        superseded.c.version == some.c.version,
                    )
                )
                require_row_count(superseded.name, changed=gone.rowcount, meant=len(meant))
                connection.execute(
                    sa.delete(log).where(
                        log.c.partner_id == self._partner_id,
                        log.c.token_id == some.c.token_id,
                        log.c.version == some.c.version,
                    )
                )
                self._record(connection, len(meant))
            after = (meant[-1].token_id, meant[-1].version)
            yield len(meant)

    def _old_versions(self, superseded: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            superseded.c.partner_id == self._partner_id,
            superseded.c.valid_to < self._horizon,
        )

    def _record(self, connection: sa.Connection, deleted: int) -> None:
        connection.execute(
            sa.insert(self._database.tables.pruning).values(
                partner_id=self._partner_id,
                kind=self._kind,
                horizon=self._horizon,
                deleted=deleted,
                program_version=program_version(),
            )
        )
