"""Who holds the lock that was not granted: found right after the waiting, when it is still held."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from etl.resources import sql_directory

ROWS_ONLY: Final = 5
"""From this rank on (``sql/ops/lock_holders.sql``) a session has locked rows, not the table."""
ROW_LOCKS: Final = 6
ANY_LOCK: Final = 8
SNAPSHOT: Final = "snapshot"
"""The mode of a session that is waited for because of its snapshot, and holds no lock."""


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

    @property
    def fields(self) -> dict[str, Any]:
        """For an error."""
        return asdict(self)

    def __str__(self) -> str:
        facts = [f"process {self.holder_pid} of the server"]
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


def lock_holder(
    connection: sa.Connection,
    *,
    schema: str | None = None,
    advisory: str | None = None,
    weakest: int = ROW_LOCKS,
) -> LockHolder | None:
    """The session with the strongest lock on one of the program's tables; None if there is none.

    Args:
        connection: of a session other than the one that waits.
        schema: whose tables; None: those of every schema of the program in the database.
        advisory: the name of the advisory lock that was wanted (``engine.lock_until_commit``).
        weakest: ``ANY_LOCK`` for statements that change a table's definition, which even a reader
            is in the way of.
    """
    values = {"schema": schema, "advisory": advisory, "weakest": weakest}
    return _first(connection, "lock_holders", values)


def snapshot_holder(connection: sa.Connection, schema: str, table: str) -> LockHolder | None:
    """The session for whose end an index of the table that is built concurrently waits longest."""
    return _first(connection, "snapshot_holders", {"schema": schema, "table": table})


def _first(connection: sa.Connection, name: str, values: dict[str, Any]) -> LockHolder | None:
    text = (sql_directory() / "ops" / f"{name}.sql").read_text(encoding="utf-8")
    found = connection.exec_driver_sql(text, values).first()
    if found is None:
        return None
    row = _Row(*found)
    return LockHolder(
        holder_pid=row.pid,
        holder_application=row.application_name or "",
        holder_role=row.role or "?",
        holder_doing=row.doing,
        locked=row.object,
        mode=row.mode,
        whole_table=row.rank < ROWS_ONLY,
        seconds=None if row.seconds is None else float(row.seconds),
    )
