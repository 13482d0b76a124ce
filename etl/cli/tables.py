"""Results for people: plain tables whose cells cannot steer the terminal."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from etl.log import json_text, printable

ROWS_SHOWN = 50
CELL_LENGTH_LIMIT = 300


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
        text = value.isoformat(sep=" ", timespec="seconds")
    elif isinstance(value, str):
        text = value
    else:
        text = json_text(value)
    if len(text) > CELL_LENGTH_LIMIT:
        text = text[:CELL_LENGTH_LIMIT] + "…"
    return Text(printable(text))


def facts_table(title: str, facts: Mapping[str, object]) -> Table:
    """Two columns: what, and how much."""
    table = _table(title)
    table.show_header = False
    table.add_column("what")
    table.add_column("value", overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name.replace("_", " ")), cell(value))
    return table


def rows_table(
    title: str, rows: Sequence[Mapping[str, object]], *, shown: int = ROWS_SHOWN
) -> Table:
    """One line a row, at most ``shown``; columns as the rows name them."""
    table = _table(title)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        numbers = all(
            isinstance(row.get(name), int | float) and not isinstance(row.get(name), bool)
            for row in rows
        )
        table.add_column(
            Text(name.replace("_", " ")), justify="right" if numbers else "left", overflow="fold"
        )
    for row in rows[:shown]:
        table.add_row(*(cell(row.get(name)) for name in names))
    if len(rows) > shown:
        table.caption = f"and {len(rows) - shown:,} more; --json shows all"
    return table


def tables_of(summary: Mapping[str, object]) -> Iterable[Table]:
    """A table for each list of rows and each group of facts in ``summary``."""
    single = {key: value for key, value in summary.items() if not isinstance(value, Mapping | list)}
    if single:
        yield facts_table("", single)
    for key, value in summary.items():
        if isinstance(value, Mapping):
            yield facts_table(key, value)
        elif isinstance(value, list):
            yield rows_table(key, [row for row in value if isinstance(row, Mapping)])


def _table(title: str) -> Table:
    return Table(
        title=Text(title.replace("_", " "), style="bold") if title else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
