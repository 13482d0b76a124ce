"""Tables for people: whole at any width, and nothing in them steers the terminal."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import RenderableType

from etl.cli import demo, erase, tables, verify
from etl.cli.status import status_tables
from etl.cli.tables import StreamedTable, cell_text, facts_table, rows_table, text_of
from etl.demo import Night
from etl.verify.checks import CheckResult
from tests.support import forked
from tests.support.calls import on_terminal
from tests.support.corruptions import build_healthy

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).resolve().parents[2]
WIDTHS = (60, 80, 120, 160, 200)
FIGURE = 987_654_321
TIME = datetime(2026, 11, 26, 2, 30, 12, tzinfo=UTC)
MESSAGE = (
    "The service refused the session: INVALID_KS. Check KALTURA_APP_TOKEN_ID and "
    "KALTURA_APP_TOKEN, and whether the token was deleted."
)
at_each_width = pytest.mark.parametrize("width", WIDTHS)


def shown(*parts: RenderableType, width: int = 100) -> str:
    return text_of(parts, width=width, terminal=False)


def assert_whole(text: str, width: int, *values: object) -> None:
    """Each value is in it, no word of it is broken, and no line is wider than it must be."""
    words = text.split()
    for value in values:
        for word in cell_text(value).split():
            assert word in words, (word, text)
    for line in text.splitlines():
        assert cell_len(line) <= width or len(line.split()) <= 2, line


# --- every row and every fact --------------------------------------------------------------------

words = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=70)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 999_999_999),
    st.floats(0, 999_999),
    st.just(TIME),
    words,
    st.lists(words, max_size=12).map(" ".join),
    st.lists(st.integers(0, 999_999_999), max_size=6),
)
rows = st.lists(st.dictionaries(st.sampled_from("abcdefghijklmn"), values), max_size=4)


@settings(deadline=None, max_examples=100)
@given(rows, st.integers(60, 200), st.sets(st.sampled_from("abcdefghijklmn")))
def test_no_cell_of_any_row_is_cut_or_broken_at_any_width(
    rows: list[dict[str, Any]], width: int, beneath: set[str]
) -> None:
    text = shown(rows_table("", rows, beneath=sorted(beneath)), width=width)

    assert_whole(text, width, *[value for row in rows for value in row.values()])


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(words, values, max_size=8), st.integers(60, 200))
def test_no_fact_is_cut_or_broken_at_any_width(facts: dict[str, Any], width: int) -> None:
    text = shown(facts_table("", facts), width=width)

    assert_whole(text, width, *facts.values())


def test_every_table_is_made_in_one_place() -> None:
    """Else the tests above would say nothing about it."""
    for path in sorted((ROOT / "etl" / "cli").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            f"{node.module}.{name.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich")
            for name in node.names
        }
        allowed = {"rich.console.RenderableType"}
        if path.name == "tables.py":
            allowed |= imported
        assert imported <= allowed, path.name


# --- the tables of the commands, with figures of nine digits -------------------------------------


def _status(accounts: int) -> dict[str, Any]:
    counts = dict.fromkeys(
        ("tokens_read", "inserted", "changed", "absent", "relisted", "rejected", "unreadable"),
        FIGURE,
    )
    times = {"started_at": TIME, "finished_at": TIME + timedelta(hours=2)}
    run = {"partner_id": FIGURE, "mode": "incremental", **times, **counts}
    good = {"run_id": FIGURE, "status": "succeeded", "error_kind": None, "error_message": None}
    bad = {"run_id": 7, "status": "abandoned", "error_kind": "credentials"}
    attempted = {"partner_id": FIGURE, "complete_at": TIME, "last_attempt_at": TIME}
    return {
        "accounts": [
            {
                "partner_id": FIGURE - number,
                "running": False,
                "last_run_status": "abandoned",
                "published_at": TIME,
                "complete_at": TIME,
                "age_hours": 123_456.7,
                "complete_age_hours": 123_456.7,
            }
            for number in range(accounts)
        ],
        "last_nights": [
            attempted | {"day": "2026-11-26", "outcome": "complete", "runs": 1, "error_kind": None},
            attempted
            | {
                "day": "2026-11-25",
                "outcome": "failed",
                "runs": FIGURE,
                "error_kind": "credentials",
            },
        ],
        "last_runs": [run | good, run | bad | {"error_message": MESSAGE}],
        "tokens_by_status": [
            {"partner_id": FIGURE, "status": "PARTIAL_UPLOAD", "listed": FIGURE, "absent": FIGURE}
        ],
    }


@at_each_width
@pytest.mark.parametrize("accounts", [0, 1, 2])
def test_the_status_is_whole(width: int, accounts: int) -> None:
    text = shown(*status_tables(_status(accounts)), width=width)

    assert_whole(text, width, "succeeded", "abandoned", "incremental", TIME, MESSAGE, str(FIGURE))
    assert_whole(text, width, "failed", "2026-11-25", "credentials")
    assert text.split().count(f"{FIGURE:,}") == 2 * 6 + 3


@at_each_width
def test_the_state_of_the_account_and_of_each_run_comes_first(width: int) -> None:
    lines = shown(*status_tables(_status(1)), width=width).splitlines()

    assert next(line for line in lines if line.startswith("abandoned")).split()[1] == str(FIGURE)
    assert [line.split()[0] for line in lines if str(FIGURE) in line][:2] == [
        "abandoned",
        "succeeded",
    ]
    assert "    error credentials: The service" in [line[:34] for line in lines]


def test_a_dry_run_is_no_error() -> None:
    summary = _status(1)
    summary["last_runs"] = [
        run | {"status": "dry_run", "error_kind": kind, "error_message": kind.upper()}
        for run in summary["last_runs"][:1]
        for kind in ("dry_run", "refused")
    ]

    text = shown(*status_tables(summary))

    assert ("DRY_RUN" in text, "error refused: REFUSED" in text) == (False, True)


def _report(**more: object) -> dict[str, Any]:
    return {
        **dict.fromkeys(tables.RUN_COUNTS, FIGURE),
        "duration_seconds": 123_456.7,
        "holes": [],
        "coverage": "{(,1700000000),[1700000009,1700000099),[1700000999,)}",
        "open_coverage": "{(,)}",
        "resumed_from": FIGURE,
        "range_from": TIME,
        "range_to": TIME,
        "full_because": "no complete run was published in the last seven days",
        "expected_requests": FIGURE,
        "asked": FIGURE,
        "not_found": [f"{number}_{'x' * 30}" for number in range(20_000)],
        "unreadable_ids": [],
        "dry_run": False,
        "partner_id": FIGURE,
        "run_id": FIGURE,
        "status": "succeeded",
        "published_at": TIME,
        **more,
    }


@at_each_width
def test_the_report_of_a_run_is_whole(width: int) -> None:
    text = shown(*tables.report_tables(_report()), width=width)

    assert_whole(text, width, FIGURE, TIME, "[1700000009,1700000099),", "20,000, such as")
    assert text.split().count(f"{FIGURE:,}") == len(tables.RUN_COUNTS) + 2


@at_each_width
def test_a_dry_run_says_how_many_changes_there_are_in_all(width: int) -> None:
    change = {"token_id": "0_" + "a" * 32, "change_kind": "first_seen", "changed_columns": None}
    counts = {"inserted": 20_000, "changed": 0, "absent": 0, "relisted": 0}
    report = _report(dry_run=True, changes=[change] * 1000, published_at=None, **counts)
    text = shown(*tables.report_tables(report), width=width)

    assert_whole(text, width, change["token_id"])
    assert "and 19,950 more; --json shows the first 1,000" in text


@at_each_width
def test_what_verify_finds_is_whole(width: int) -> None:
    row = {"partner_id": FIGURE, "token_id": "0_" + "a" * 32, "version": FIGURE, "valid_from": TIME}
    row |= {"changed_columns": ["file_name", "status"], "wanted": None}
    found = [
        CheckResult(
            "certificate_adds_up", "The coverage of a run is that of its pages.", True, [], 0
        ),
        CheckResult("versions_contiguous", "Versions are 1, 2, 3, …", False, [row] * 20, FIGURE),
    ]
    text = shown(*verify._tables(found, {"seed": FIGURE, "listed": FIGURE}), width=width)

    assert_whole(text, width, "FAILED", "certificate_adds_up", row["token_id"], FIGURE, TIME)
    assert f"and {FIGURE - 20:,} more; --json shows the first 20" in text


@at_each_width
def test_what_erase_replaces_is_whole(width: int) -> None:
    subject = {
        "kind": "user",
        "subject_hash": "ab" * 16,
        "tokens": FIGURE,
        "tables": {"upload_token_superseded": {"rows": FIGURE, "values": FIGURE}},
    }
    left = [{"file": "partner-102/run-0000000041/batch-000001.zst", "reason": MESSAGE}]
    archive = {"address": "/srv/archive", "files": FIGURE, "rewritten": 7, "left": left}
    result = {"applied": True, "partner_id": FIGURE, "subjects": [subject], "archive": archive}
    text = shown(*erase._tables(result | {"still_there": "backups"}), width=width)

    assert_whole(text, width, FIGURE, subject["subject_hash"], "upload_token_superseded", MESSAGE)


@at_each_width
def test_the_nights_of_the_demo_are_whole(width: int) -> None:
    figures = dict.fromkeys(
        ("run_id", "tokens", "new", "changed", "absent", "relisted", "requests"), FIGURE
    )
    night = Night(night=1, at=TIME, seconds=123_456.7, coverage="{(,)}", **figures)
    text = shown(demo._night(night), width=width)

    assert_whole(text, width, "Thu 26 Nov", 123_456.7, "{(,)}")
    assert text.split().count(f"{FIGURE:,}") == 6


def test_rows_that_come_one_by_one_stand_under_each_other() -> None:
    table = StreamedTable({"name": 6, "tokens": 7})
    text = shown(
        table.row({"name": "a", "tokens": 5_000}, heading=True),
        table.row({"name": "bcd", "tokens": 12}, heading=False),
    )

    assert text.splitlines()[-2:] == ["a         5,000", "bcd          12"]


@pytest.mark.parametrize("columns", [60, 80, 120, 200, None])
def test_the_program_shows_whole_tables_on_a_terminal_and_on_a_pipe(
    columns: int | None, database_url: str, clean_environment: dict[str, str]
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("set search_path = kaltura")
        build_healthy(connection)
        connection.execute(
            "update kaltura.sync_run set inserted = %s, changed = %s, absent = %s, rejected = %s",
            [FIGURE] * 4,
        )
    environment = clean_environment | {"DATABASE_URL": database_url, "TERM": "xterm"}
    text = _output("status", environment, columns)

    assert_whole(text, columns or 160, FIGURE, "succeeded", "Tokens", "hours")
    assert text.split().count(f"{FIGURE:,}") == 8 * 4


def _output(command: str, environment: dict[str, str], columns: int | None) -> str:
    """Standard output of the program, on a terminal of so many columns or on a pipe."""
    if columns is not None:
        return on_terminal(environment, [command], columns)
    done = forked.call(command, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- cells ---------------------------------------------------------------------------------------


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


def test_days_and_durations_are_written_as_people_write_them() -> None:
    assert cell_text(date(2026, 11, 19)) == "2026-11-19"
    lengths = [timedelta(), timedelta(hours=1), timedelta(days=3, hours=4, minutes=9)]
    assert [cell_text(length) for length in lengths] == ["0 s", "1 h", "3 d 4 h"]


def test_long_lists_are_cut_and_say_so() -> None:
    assert "and 1,950 more; --json shows all" in shown(rows_table("", [{"a": 1}] * 2000))
