"""Results for people: plain tables whose cells cannot steer the terminal."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from etl.process.log import json_text, printable

ROWS_SHOWN = 50
CELL_LENGTH_LIMIT = 300
RUN_COUNTS = (
    "tokens_read",
    "rows_read",
    "inserted",
    "changed",
    "absent",
    "relisted",
    "unchanged",
    "rejected",
    "partly_loaded",
    "unreadable",
    "requests",
    "retries",
    "pages",
)
"""Counts of the table, in this order; ``--json`` has every field of the report."""
IDS_SHOWN = 20


def cell(value: object) -> Text:
    """``value`` as text: counts with separators, times to the second, nothing for None."""
    if value is None:
        text = ""
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, float):
        text = f"{value:,.1f}"
    elif isinstance(value, datetime.datetime):
        text = f"{value.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%SZ}"
    elif isinstance(value, str):
        text = value
    else:
        text = json_text(value)
    if len(text) > CELL_LENGTH_LIMIT:
        text = text[:CELL_LENGTH_LIMIT] + "…"
    return Text(printable(text))


def facts_table(title: str, facts: Mapping[str, object]) -> RenderableType:
    """Two columns: what, and how much."""
    table = _table()
    table.show_header = False
    table.add_column("what")
    table.add_column("value", overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name.replace("_", " ")), _cell_of(name, value))
    return _titled(title, table)


def rows_table(
    title: str, rows: Sequence[Mapping[str, object]], *, shown: int = ROWS_SHOWN
) -> RenderableType:
    """One line per row, at most ``shown``; columns as the rows name them, without empty ones."""
    table = _table()
    names = list(dict.fromkeys(name for row in rows for name in row if row[name] not in (None, "")))
    for name in names:
        values = [row.get(name) for row in rows]
        numbers = all(isinstance(value, int | float) or value is None for value in values)
        times = any(isinstance(value, datetime.datetime) for value in values)
        table.add_column(
            Text(name.replace("_", " ")),
            justify="right" if numbers else "left",
            overflow="fold",
            no_wrap=numbers or times,
        )
    for row in rows[:shown]:
        table.add_row(*(_cell_of(name, row.get(name)) for name in names))
    if len(rows) > shown:
        more = Text(f"and {len(rows) - shown:,} more; --json shows all")
        return Group(_titled(title, table), more)
    return _titled(title, table)


def tables_of(summary: Mapping[str, object]) -> Iterable[RenderableType]:
    """A table per list of rows and per group of facts in ``summary``."""
    single = {key: value for key, value in summary.items() if not isinstance(value, Mapping | list)}
    if single:
        yield facts_table("", single)
    for key, value in summary.items():
        if isinstance(value, Mapping):
            yield facts_table(key, value)
        elif isinstance(value, list):
            yield rows_table(key, [row for row in value if isinstance(row, Mapping)])


def report_tables(report: dict[str, Any]) -> list[RenderableType]:
    """The report for a person."""
    facts: dict[str, object] = {name: report[name] for name in RUN_COUNTS}
    facts["duration"] = f"{report['duration_seconds']:.1f} s"
    facts["coverage"] = report["coverage"]
    if report["open_coverage"] != "{}":
        facts["open_coverage"] = report["open_coverage"]
    for name in ("resumed_from", "range_from", "range_to", "full_because", "expected_requests"):
        if report[name] is not None:
            facts[name] = str(report[name])
    if report["asked"]:
        facts["ids_asked"] = report["asked"]
        facts["ids_not_found"] = _some(report["not_found"])
    if report["unreadable_ids"]:
        facts["ids_unreadable"] = _some(report["unreadable_ids"])
    if report["dry_run"]:
        title = "Nothing was published (dry run). This would change:"
    else:
        title = f"Account {report['partner_id']}, run {report['run_id']}: {report['status']}"
        facts["published_at"] = report["published_at"]
    tables = [facts_table(title, facts)]
    if report["dry_run"]:
        changes = report.get("changes") or []
        rows = [row if isinstance(row, dict) else {"change": row} for row in changes]
        tables.append(rows_table("changes" if rows else "no changes", rows))
    return tables


def _cell_of(name: str, value: object) -> Text:
    # An identifier is not a quantity: partner_id 1234567 gets no separators.
    if name in ("pid", "seq") or name.endswith("_id"):
        return cell(None if value is None else str(value))
    return cell(value)


def _titled(title: str, table: Table) -> RenderableType:
    # Not the table's own title: that is wrapped to the width of the columns.
    heading = Text(printable(title.replace("_", " ")), style="bold")
    return Group(Text(""), heading, Text(""), table) if title else table


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def _some(ids: list[str]) -> str:
    more = len(ids) - IDS_SHOWN
    shown = ", ".join(ids[:IDS_SHOWN])
    return f"{len(ids)}: {shown}{f', and {more} more' if more > 0 else ''}" if ids else "0"
