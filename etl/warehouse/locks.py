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

    @property
    def fields(self) -> dict[str, Any]:
        """For an error."""
        return asdict(self)

    def __str__(self) -> str:
        since = "" if self.seconds is None else f", in a transaction of {self.seconds:.0f} s"
        what = f"{self.locked} ({self.mode})" if self.whole_table else f"rows of {self.locked}"
        return (
            f"{self.holder_application or 'a session'} of role {self.holder_role} (process "
            f"{self.holder_pid} of the server{since}) holds {what}"
        )


class _Row(NamedTuple):
    pid: int
    application_name: str | None
    role: str | None
    mode: str
    object: str
    seconds: float | None
    rank: int


def lock_holder(
    connection: sa.Connection, *, advisory: bool = False, weakest: int = ROW_LOCKS
) -> LockHolder | None:
    """The session with the strongest lock on one of the program's tables; None if there is none.

    ``advisory``: the lock that was wanted was an advisory one; ``weakest``: ``ANY_LOCK`` for
    statements that change a table's definition, which even a reader is in the way of.
    """
    text = (sql_directory() / "ops" / "lock_holders.sql").read_text(encoding="utf-8")
    found = connection.exec_driver_sql(text, {"advisory": advisory, "weakest": weakest}).first()
    if found is None:
        return None
    row = _Row(*found)
    return LockHolder(
        holder_pid=row.pid,
        holder_application=row.application_name or "",
        holder_role=row.role or "?",
        locked=row.object,
        mode=row.mode,
        whole_table=row.rank < ROWS_ONLY,
        seconds=None if row.seconds is None else float(row.seconds),
    )
