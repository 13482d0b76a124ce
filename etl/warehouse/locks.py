"""Who holds the lock that was not granted: found right after the waiting, when it is still held."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import msgspec
import psycopg
import sqlalchemy as sa

from etl.resources import sql_directory

ROWS_ONLY: Final = 5
"""From this rank on (``sql/ops/lock_holders.sql``) a session has locked rows, not the table."""
ROW_LOCKS: Final = 6
ANY_LOCK: Final = 8
SNAPSHOT: Final = "snapshot"
"""The mode of a session that is waited for because of its snapshot, and holds no lock."""
_SHARD: Final = re.compile(r"_\d{5,}$")
"""What Citus appends to the name of a table on a worker; no table of the program ends so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """A session that is in the way."""

    holder_pid: int
    """Process id of its server process: ``select pg_terminate_backend(…)`` ends it."""
    holder_application: str
    holder_role: str
    locked: str
    """The table, such as ``kaltura.sync_run``."""
    mode: str
    whole_table: bool
    """Whether the whole table is locked, or rows of it: then another session may be meant."""
    seconds: float | None
    """Age of its transaction; None if the role may not see it."""
    holder_doing: str | None
    """First word of its statement, or its state, such as ``idle in transaction``; None as above."""
    holder_worker: str | None
    """Host and port of the worker of Citus whose session it is; None: of this server's."""

    @property
    def fields(self) -> dict[str, Any]:
        """For an error."""
        return asdict(self)

    def __str__(self) -> str:
        server = "the server" if self.holder_worker is None else f"worker {self.holder_worker}"
        facts = [f"process {self.holder_pid} of {server}"]
        if self.holder_doing is not None:
            facts.append(self.holder_doing)
        if self.seconds is not None:
            facts.append(f"in a transaction of {self.seconds:.0f} s")
        what = f"{self.locked} ({self.mode})" if self.whole_table else f"rows of {self.locked}"
        if self.mode == SNAPSHOT:
            what = self.locked
        return (
            f"{self.holder_application or 'a session'} of role {self.holder_role} "
            f"({', '.join(facts)}) holds {what}"
        )


class _Row(NamedTuple):
    pid: int
    application_name: str | None
    role: str | None
    mode: str
    object: str
    seconds: float | None
    doing: str | None
    rank: int
    worker: str | None = None


def lock_holder(
    connection: sa.Connection,
    *,
    schema: str | None = None,
    advisory: str | None = None,
    weakest: int = ROW_LOCKS,
) -> LockHolder | None:
    """The session with the strongest lock on one of the program's tables; None if there is none.

    On Citus, sessions of its workers count as well.

    Args:
        connection: of a session other than the one that waits.
        schema: whose tables; None: those of every schema of the program in the database.
        advisory: the name of the advisory lock that was wanted (``engine.lock_until_commit``).
        weakest: ``ANY_LOCK`` for statements that change a table's definition, which even a reader
            is in the way of.
    """
    values = {"schema": schema, "advisory": advisory, "weakest": weakest}
    rows = [*_here(connection, "lock_holders", values), *_on_workers(connection, values)]
    return _holder(min(rows, key=lambda row: row.rank, default=None))


def snapshot_holder(connection: sa.Connection, schema: str, table: str) -> LockHolder | None:
    """The session for whose end an index of the table that is built concurrently waits longest."""
    values = {"schema": schema, "table": table}
    return _holder(next(_here(connection, "snapshot_holders", values), None))


def _here(connection: sa.Connection, name: str, values: dict[str, Any]) -> Iterator[_Row]:
    for row in connection.exec_driver_sql(_text(name), values):
        yield _Row(*row)


def _on_workers(connection: sa.Connection, values: dict[str, Any]) -> Iterator[_Row]:
    """The same query, sent to each worker of Citus, which knows tables by the names of shards.

    A session of the coordinator is not told a second time by its connection to the worker
    (``sql/ops/lock_holders.sql`` leaves out those of Citus itself).
    """
    found = sa.select(sa.func.to_regproc("pg_catalog.run_command_on_workers"))
    if connection.scalar(found) is None:
        return
    driver: Any = connection.connection.driver_connection
    query = psycopg.ClientCursor(driver).mogrify(_text("lock_holders"), values)
    columns = ", ".join(_Row._fields[:-1])
    as_array = f"coalesce(jsonb_agg(jsonb_build_array({columns})), '[]')"
    command = f"select {as_array} from (\n{query}) as found"  # noqa: S608 - mogrify has bound it
    answers = sa.func.run_command_on_workers(command).table_valued(
        "nodename", "nodeport", "success", "result"
    )
    for node, port, told in connection.execute(
        sa.select(answers.c.nodename, answers.c.nodeport, answers.c.result).where(answers.c.success)
    ):
        for each in msgspec.json.decode(told):
            row = _Row._make((*each, f"{node}:{port}"))
            yield row._replace(object=_SHARD.sub("", row.object))


def _text(name: str) -> str:
    return (sql_directory() / "ops" / f"{name}.sql").read_text(encoding="utf-8")


def _holder(row: _Row | None) -> LockHolder | None:
    if row is None:
        return None
    return LockHolder(
        holder_pid=row.pid,
        holder_application=row.application_name or "",
        holder_role=row.role or "?",
        holder_doing=row.doing,
        holder_worker=row.worker,
        locked=row.object,
        mode=row.mode,
        whole_table=row.rank < ROWS_ONLY,
        seconds=None if row.seconds is None else float(row.seconds),
    )
