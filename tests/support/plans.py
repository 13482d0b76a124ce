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


def nodes_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a plan, each above those that it reads."""
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes_of(child))]


def scans(nodes: list[dict[str, Any]], table: str) -> list[str]:
    """How a table was read: names of indexes, or Seq Scan; nodes that were never run left out."""
    found = []
    for node in nodes:
        if node.get("Relation Name") == table and node["Actual Loops"]:
            parts = nodes_of(node) if node["Node Type"] == "Bitmap Heap Scan" else [node]
            indexes = [part["Index Name"] for part in parts if "Index Name" in part]
            found += indexes or [node["Node Type"]]
    return found


def rows_read(nodes: list[dict[str, Any]], table: str) -> float:
    """The rows that were read of a table, those thrown away too."""
    return sum(
        float((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in nodes
        if node.get("Relation Name") == table
    )
