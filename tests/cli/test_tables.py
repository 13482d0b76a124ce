"""Tables for people."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console, RenderableType

from etl.cli.tables import facts_table, rows_table, tables_of


def shown(*tables: RenderableType) -> str:
    body = io.StringIO()
    console = Console(file=body, width=100, markup=False, emoji=False, highlight=False)
    for table in tables:
        console.print(table)
    return body.getvalue()


def test_what_a_stranger_named_cannot_steer_the_terminal() -> None:
    text = shown(rows_table("t", [{"file_name": "[red]\x1b[31m:smile:\u202e\nx"}]))

    assert "[red]\\x1b[31m:smile:\\u202e\\nx" in text


def test_counts_have_separators_and_names_have_none() -> None:
    text = shown(facts_table("t", {"tokens": 1234567, "partner_id": 1234567, "nothing": None}))

    assert "1,234,567" in text
    assert " 1234567" in text


def test_a_column_without_a_value_is_left_out_and_a_title_is_not_broken() -> None:
    text = shown(rows_table("a title that is wider than the table", [{"a": 1, "error": None}]))

    assert "error" not in text
    assert "a title that is wider than the table" in text


def test_times_are_utc_and_stay_on_one_line() -> None:
    row = {f"at_{number}": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) for number in range(3)}

    assert shown(rows_table("", [row])).count("2026-01-02 03:04:05Z") == 3


def test_long_lists_are_cut_and_say_so() -> None:
    assert "and 1,950 more" in shown(rows_table("", [{"a": 1}] * 2000))


def test_a_summary_becomes_a_table_for_each_part() -> None:
    text = shown(*tables_of({"x": 1, "facts": {"y": True}, "rows": [{"z": 1.25}], "none": []}))

    assert all(word in text for word in ("x", "facts", "yes", "rows", "1.2"))
