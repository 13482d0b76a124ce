"""The work of statements, as their plans count it: rows, not seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from etl.warehouse.schema.database import Database

_REMOVED = (
    "Rows Removed by Filter",
    "Rows Removed by Join Filter",
    "Rows Removed by Index Recheck",
)


def work_of(plan: dict[str, Any]) -> float:
    """The rows that the nodes of a plan have made or thrown away, in all their loops."""
    own = plan["Actual Loops"] * (
        1 + plan["Actual Rows"] + sum(plan.get(name, 0) for name in _REMOVED)
    )
    return float(own) + sum(work_of(child) for child in plan.get("Plans", ()))


@contextmanager
def measured(database: Database | None = None) -> Iterator[Counter[str]]:
    """The work of each statement that reads staging or tokens, by its first words.

    Of one database, or of all that this process opens meanwhile.

    Each is explained with ANALYZE, in a savepoint that is rolled back, just before it is executed.
    """
    work: Counter[str] = Counter()

    def explain(*arguments: Any) -> None:
        cursor, statement, parameters, executemany = *arguments[1:4], arguments[5]
        text = " ".join(statement.split())
        if (
            executemany
            or "upload_token" not in text
            or not text[:6].lower().startswith(("select", "with", "insert", "delete", "update"))
        ):
            return
        with cursor.connection.cursor() as own:
            own.execute("savepoint measured")
            own.execute(f"explain (analyze, format json) {statement}", parameters)
            (plans,) = own.fetchone()
            own.execute("rollback to savepoint measured")
        work[text[:90]] += round(work_of(plans[0]["Plan"]))

    engine = Engine if database is None else database.engine
    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield work
    finally:
        event.remove(engine, "before_cursor_execute", explain)
