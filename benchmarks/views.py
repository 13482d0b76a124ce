"""How long the analysts' views take: ``./dev bench views``; see benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.history import write_versions
from etl.demo import with_variables
from etl.embedded.server import embedded_server
from etl.resources import sql_directory
from etl.verify.checks import verify
from etl.warehouse.access.grants import grant
from etl.warehouse.schema.revision import migrate

ONE_TOKEN: Final = "partner_id = 101 and token_id = '0_' || md5('777')"  # noqa: S105
NIGHT: Final = "timestamptz '2026-09-29 02:09+00'"
WEEK: Final = "{0} >= '2026-09-20' and {0} < '2026-09-27'"
PLAIN: Final = "bench_scd2"
"""The table that the views are measured against: all versions, with usual indexes."""
QUERIES: Final = {
    "history of one token": f"select * from upload_token_history where {ONE_TOKEN}",  # noqa: S608
    "history, one night": ("select * from upload_token_history where run_id = :run_id"),
    "history, one night by time": (
        f"select * from upload_token_history where valid_from = {NIGHT}"  # noqa: S608
    ),
    "status changes of one token": (
        f"select * from upload_token_status_history where {ONE_TOKEN}"  # noqa: S608
    ),
    "status changes, one night": (
        "select * from upload_token_status_history where run_id = :run_id"
    ),
    "status changes, one night by time": (
        f"select * from upload_token_status_history where valid_from = {NIGHT}"  # noqa: S608
    ),
    "status changes that happened in a week": (
        "select count(*) from upload_token_status_history where "  # noqa: S608
        + WEEK.format("happened_at")
    ),
    "failures that happened in a week": (
        "select * from upload_token_status_history where "  # noqa: S608
        + WEEK.format("happened_at")
        + " and to_status = 'TIMED_OUT'"
    ),
    "status durations of one token": (
        f"select * from upload_status_duration where {ONE_TOKEN}"  # noqa: S608
    ),
    "status durations of one user": "select * from upload_status_duration where user_id = 'user7'",
    "status durations of a day's uploads": (
        "select * from upload_status_duration "
        "where created_at >= '2026-09-20' and created_at < '2026-09-21'"
    ),
    "status durations": (
        "select status, count(*), avg(at_least_seconds), avg(at_most_seconds) "
        "from upload_status_duration group by 1"
    ),
    "status changes, all with times": (
        "select from_status, to_status, count(*), avg(time_in_from_status_seconds), "
        "max(happened_at) from upload_token_status_history group by 1, 2"
    ),
    "as of a recent day": "select count(*) from upload_token_as_of('2026-09-29')",
    "as of a day long ago": "select count(*) from upload_token_as_of('2026-08-15')",
    "as of, by status": (
        "select status, count(*) from upload_token_as_of('2026-09-29') where is_listed group by 1"
    ),
    "happened by a recent day": "select count(*) from upload_token_happened_by('2026-09-29')",
    "happened by a day long ago": "select count(*) from upload_token_happened_by('2026-08-15')",
    "daily status": "select * from upload_token_daily_status",
    "daily status, one day": "select * from upload_token_daily_status where day = '2026-09-20'",
    "outcome of one token": f"select * from upload_outcome where {ONE_TOKEN}",  # noqa: S608
    "outcomes of one user": "select * from upload_outcome where user_id = 'user7'",
    "outcomes of 7 days": (
        "select outcome, count(*) from upload_outcome where "  # noqa: S608
        + WEEK.format("created_at")
        + " group by 1"
    ),
    "outcomes of all uploads": "select outcome, count(*) from upload_outcome group by 1",
    "outcomes a day": "select * from upload_outcome_daily",
    "outcomes a day, one day": "select * from upload_outcome_daily where day = '2026-09-20'",
    "outcomes a day, one week": (
        "select * from upload_outcome_daily where day between '2026-09-20' and '2026-09-26'"
    ),
    "stuck uploads": "select * from stuck_upload",
    "users": "select * from upload_user_summary",
    "one user": "select * from upload_user_summary where user_id = 'user7'",
    "bytes a day": "select * from upload_bytes_daily",
    "bytes a day, one week": (
        "select * from upload_bytes_daily where day between '2026-09-20' and '2026-09-26'"
    ),
    "freshness": "select * from sync_freshness",
    "nights": "select * from sync_night",
    "nights, one week": (
        "select * from sync_night where partner_id = 101 "
        "and day between '2026-09-20' and '2026-09-26'"
    ),
    "nights, one day": "select * from sync_night where partner_id = 101 and day = '2026-09-20'",
    "dbt, since yesterday": (
        "select * from upload_token_snapshot_dbt where dbt_updated_at > '2026-09-29'"
    ),
    # What the same costs on one table of all versions with usual indexes.
    "plain table: one token": f"select * from {PLAIN} where {ONE_TOKEN}",  # noqa: S608
    "plain table: one night": f"select * from {PLAIN} where valid_from = {NIGHT}",  # noqa: S608
    "plain table: updated in a week": (
        f"select count(*) from {PLAIN} where "  # noqa: S608
        + WEEK.format("updated_at")
    ),
    "plain table: statuses of 7 days": (
        f"select status, count(*) from {PLAIN} where is_current and "  # noqa: S608
        + WEEK.format("created_at")
        + " group by 1"
    ),
    "plain table: one user": f"select * from {PLAIN} where user_id = 'user7'",  # noqa: S608
}
VARIABLES: Final = {
    "partner_id": "101",
    "now": "2026-09-30 08:00+00",
    "since": "2026-08-31",
    "day": "2026-09-26",
    "at": "2026-09-23 08:00+00",
    "run_id": "119",
    "run_before": "117",
    "token_id": "0_a87ff679a2f3e71d9181a67b7542122c",
    "within": "1 hour",
    "months": "12",
}
"""What variables.psql would set on the last morning of the warehouse."""
LAST_OF_A_YEAR: Final = {"run_id": "104833", "run_before": "104545"}
"""The same runs in the ledger of a year."""


def queries(*, a_year_of_runs: bool = False) -> dict[str, str]:
    """Each of ``QUERIES``, and every query of ``sql/queries`` by its file, with their variables."""
    files = sorted((sql_directory() / "queries").glob("*.sql"))
    asked = QUERIES | {file.name: file.read_text(encoding="utf-8") for file in files}
    variables = VARIABLES | (LAST_OF_A_YEAR if a_year_of_runs else {})
    return {name: with_variables(query, variables) for name, query in asked.items()}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="./dev bench views", description="Measure the analysts' views on a large warehouse."
    )
    parser.add_argument("--tokens", type=int, default=1_000_000, help="default 1000000")
    parser.add_argument(
        "--runs", type=int, default=3, help="number of runs, of which the best counts; default 3"
    )
    parser.add_argument(
        "--year",
        action="store_true",
        help="the ledger of a year of runs every five minutes, instead of two runs per night",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the warehouse there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--only", metavar="TEXT", default="", help="queries whose names contain it")
    given = parser.parse_args(arguments)
    asked = queries(a_year_of_runs=given.year).items()
    with ExitStack() as held:
        folder = given.data
        if folder is None:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="bench-views-")))
            folder.chmod(0o711)  # as root the server runs as another user
            folder = folder / "data"
        url = held.enter_context(embedded_server(folder))
        migrate(url)
        connection = held.enter_context(closing(psycopg.connect(url, autocommit=True)))
        connection.execute("set search_path = kaltura")
        built = _build(connection, given.tokens, given.year, url)
        _become_analyst(connection, url)
        figures = [
            _measure(connection, name, query, given.runs)
            for name, query in asked
            if given.only in name
        ]
    print(_table(built, figures))
    if given.json is not None:
        result = {"machine": _machine(), "warehouse": built, "queries": figures}
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _build(
    connection: psycopg.Connection[Any], tokens: int, year: bool, url: str
) -> dict[str, Any]:
    """Fill the warehouse if it is empty, and check it once; returns its counts."""
    if not connection.execute("select 1 from upload_token limit 1").fetchone():
        write_versions(connection, tokens, a_year_of_runs=year)
        _say("verify")
        if broken := [each.name for each in verify(url) if not each.ok]:
            raise RuntimeError(f"the data break {', '.join(broken)}")
        _build_plain(connection)
    names = ("tokens", "superseded", "runs", "mebibytes", "postgres")
    row = connection.execute(
        "select (select count(*) from upload_token), (select count(*) from "
        "upload_token_superseded), (select count(*) from sync_run), "
        "pg_database_size(current_database()) >> 20, current_setting('server_version')"
    ).fetchone()
    assert row is not None  # noqa: S101
    return dict(zip(names, row, strict=True))


def _build_plain(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        f"create table {PLAIN} as select * from upload_token_history "  # noqa: S608
        "order by valid_from, token_id".encode()
    )
    for columns in (
        *("partner_id, token_id, version", "valid_from", "updated_at", "created_at", "user_id"),
    ):
        connection.execute(f"create index on {PLAIN} ({columns})".encode())
    connection.execute(f"vacuum analyze {PLAIN}".encode())


def _become_analyst(connection: psycopg.Connection[Any], url: str) -> None:
    """As analysts are: limited to one account, by row-level security on each table."""
    role = "bench_analyst"
    found = connection.execute("select 1 from pg_roles where rolname = %s", [role]).fetchone()
    if found is None:
        connection.execute(f"create role {role} nologin".encode())
        grant(url, "kaltura", {"analyst": role}, accounts=[101], apply=True)
        connection.execute(f"alter table {PLAIN} enable row level security".encode())
        connection.execute(
            f"create policy limited on {PLAIN} using (partner_id = any ('{{101}}'))".encode()
        )
        connection.execute(f"grant select on {PLAIN} to {role}".encode())
    connection.execute(f"set role {role}".encode())


def _measure(
    connection: psycopg.Connection[Any], name: str, statement: str, runs: int
) -> dict[str, Any]:
    """The best of some runs, rows fetched; and the work of it, if one process does it alone."""
    _say(name)
    query = statement.encode()
    seconds, rows = [], 0
    for _ in range(runs):
        began = time.perf_counter()
        rows = len(connection.execute(query).fetchall())
        seconds.append(time.perf_counter() - began)
    connection.execute("set max_parallel_workers_per_gather = 0")
    before = _processor_seconds(connection)
    connection.execute(query).fetchall()
    work = _processor_seconds(connection) - before
    connection.execute("reset max_parallel_workers_per_gather")
    return {
        "query": name,
        "seconds": min(seconds),
        "processor_seconds": work,
        "rows": rows,
        "load": os.getloadavg()[0],
    }


def _processor_seconds(connection: psycopg.Connection[Any]) -> float:
    """What the server's process of this connection has used so far; NaN where /proc is missing."""
    try:
        stat = Path(f"/proc/{connection.info.backend_pid}/stat").read_text(encoding="ascii")
    except OSError:
        return float("nan")
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _table(built: dict[str, Any], figures: list[dict[str, Any]]) -> str:
    lines = [
        f"{built['tokens']:,} tokens, {built['tokens'] + built['superseded']:,} versions, "
        f"{built['runs']} runs, {built['mebibytes']:,} MiB; {_machine()}, "
        f"PostgreSQL {built['postgres']}",
        "",
        "| Query | Seconds | Processor seconds | Rows | Load of the machine |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each['query']} | {each['seconds']:.3f} | {each['processor_seconds']:.2f} | "
        f"{each['rows']:,} | {each['load']:.1f} |"
        for each in figures
    ]
    return "\n".join(lines)


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
