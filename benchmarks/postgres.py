"""The Postgres of a benchmark: the embedded one, with the product's (durable) settings."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.program import clean_environment, program

SCHEMA = "kaltura"
TEMPLATE = "bench_template"
BACKGROUND = (
    *("checkpointer", "background writer", "walwriter", "autovacuum launcher", "archiver"),
    *("io worker", "logical replication launcher", "startup"),
)
"""Processes of the server that do not belong to a connection; io workers do, and are counted so."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ServerSeconds:
    """Processor seconds of the server's processes so far."""

    backends: float
    """Backends, their parallel workers and io workers, whether they still run or not."""
    wal_writer: float
    checkpointer: float
    other: float

    def __sub__(self, before: ServerSeconds) -> ServerSeconds:
        return ServerSeconds(
            self.backends - before.backends,
            self.wal_writer - before.wal_writer,
            self.checkpointer - before.checkpointer,
            self.other - before.other,
        )

    @property
    def whole(self) -> float:
        return self.backends + self.wal_writer + self.checkpointer + self.other


@dataclass(frozen=True, slots=True)
class Written:
    """What has been written in a database so far, as the server counts it."""

    rows: int
    """Inserted, updated and deleted, in every table: staging, temporary and system tables too."""
    dead: int
    """Dead tuples in the tables that are there."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """``url`` is its first database; ``monitor`` a connection that stays open."""

    url: str
    monitor: psycopg.Connection[Any]

    def url_of(self, database: str) -> str:
        return self.url.replace("/postgres?", f"/{database}?")

    def ask(self, query: str, *values: object) -> Any:
        """The first value of the first row."""
        row = self.monitor.execute(query.encode(), values or None).fetchone()
        assert row is not None  # noqa: S101
        return row[0]

    @property
    def version(self) -> str:
        return str(self.ask("show server_version"))

    # ---- databases ----------------------------------------------------------------------------

    def make_template(self) -> None:
        """A migrated database, of which each first load of this program gets a copy."""
        self.monitor.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(TEMPLATE)))
        self.monitor.execute(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
        subprocess.run(
            [*program(), "migrate"],
            env=clean_environment(DATABASE_URL=self.url_of(TEMPLATE)),
            check=True,
            capture_output=True,
        )

    @contextmanager
    def database(
        self, name: str, *, migrated: bool, work_mem: str | None = None, keep: bool = False
    ) -> Iterator[str]:
        """A new database, for as long as the context lasts; yields its URL.

        With ``keep`` it stays, and one that is there is used as it is.
        """
        quoted = sql.Identifier(name)
        if keep and self.ask("select exists (select from pg_database where datname = %s)", name):
            yield self.url_of(name)
            return
        template = sql.Identifier(TEMPLATE if migrated else "template0")
        self.monitor.execute(
            # The file copy does not fill shared buffers, as a database of another day would not.
            sql.SQL("create database {} template {} strategy file_copy").format(quoted, template)
        )
        try:
            if work_mem is not None:
                self.monitor.execute(
                    sql.SQL("alter database {} set work_mem = {}").format(quoted, work_mem)
                )
            yield self.url_of(name)
        finally:
            if not keep:
                self.monitor.execute(sql.SQL("drop database {} with (force)").format(quoted))

    def rest(self, database: str) -> None:
        """What a server does by itself between two nights: vacuum, analyze, checkpoint."""
        with psycopg.connect(self.url_of(database), autocommit=True) as connection:
            connection.execute("vacuum (analyze)")
            connection.execute("checkpoint")

    def column(self, database: str, query: str) -> list[Any]:
        """The first column of a query."""
        with psycopg.connect(self.url_of(database), autocommit=True) as connection:
            return [row[0] for row in connection.execute(query.encode())]

    # ---- counters -----------------------------------------------------------------------------

    def wal_position(self) -> int:
        """Bytes of WAL that the server has written."""
        return int(self.ask("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8"))

    def wait_for_clients(self, database: str) -> None:
        """Until no backend of this database is left: they tell their counts when they end."""
        deadline = time.monotonic() + 60
        # Not the workers of autovacuum, which stay for minutes in a large table.
        count = (
            "select count(*) from pg_stat_activity"
            " where datname = %s and backend_type = 'client backend'"
        )
        while self.ask(count, database):
            if time.monotonic() > deadline:
                raise RuntimeError(f"a client of {database} has not gone")
            time.sleep(0.002)

    def written(self, database: str) -> Written:
        rows = self.ask(
            "select coalesce(sum(tup_inserted + tup_updated + tup_deleted), 0)::int8"
            " from pg_stat_database where datname = %s",
            database,
        )
        dead = "select coalesce(sum(n_dead_tup), 0)::int8 from pg_stat_user_tables"
        return Written(rows, self.column(database, dead)[0])

    def processor_seconds(self) -> ServerSeconds:
        """Of all processes, without the monitor's backend; Linux only."""
        postmaster = _stat(self.monitor.info.backend_pid)[1]
        parts = {"backends": 0.0, "walwriter": 0.0, "checkpointer": 0.0, "other": 0.0}
        for pid in _children(postmaster):
            if pid == self.monitor.info.backend_pid:
                continue
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
                seconds = sum(map(int, _stat_fields(pid)[11:13])) / _TICKS
            except OSError:
                continue  # it has ended, and the postmaster's own figure has its seconds
            name = title.removeprefix("postgres: ")
            kind = next((one for one in BACKGROUND if name.startswith(one)), "backends")
            kind = "backends" if kind == "io worker" else kind
            parts[kind if kind in parts else "other"] += seconds
        # Its own seconds are those of starting backends; the others are of those that have ended.
        parts["backends"] += sum(map(int, _stat_fields(postmaster)[11:15])) / _TICKS
        return ServerSeconds(
            parts["backends"], parts["walwriter"], parts["checkpointer"], parts["other"]
        )


def processor_seconds(pid: int) -> float:
    """Processor seconds of a running process so far."""
    return sum(map(int, _stat_fields(pid)[11:13])) / _TICKS


def _stat_fields(pid: int) -> list[str]:
    """``/proc/PID/stat`` from its third field on."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _stat(pid: int) -> tuple[int, int]:
    return pid, int(_stat_fields(pid)[1])


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if _stat(int(entry.name))[1] == parent:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A server with a warehouse template, for as long as the context lasts."""
    from etl.embedded.server import embedded_server

    with embedded_server(folder) as url, psycopg.connect(url, autocommit=True) as monitor:
        server = Postgres(url, monitor)
        server.make_template()
        yield server
