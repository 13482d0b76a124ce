"""``./dev bench scale``: what grows with the number of tokens and versions; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.history import write_versions
from benchmarks.machine import describe_machine
from benchmarks.meter import Measured, measure
from benchmarks.postgres import SCHEMA, Postgres, postgres, processor_seconds
from benchmarks.program import clean_environment, program, write_bytecode
from benchmarks.service import CHANGED_SHARE, simulator
from benchmarks.table import MIB, say
from benchmarks.tools import this_program
from benchmarks.views import queries

PARTS: Final = ("nights", "history", "views")
"""The last is a part of the one before it."""
PARTNER_OF_HISTORY: Final = "101"
"""The account that ``views_data.sql`` writes."""
VIEWS: Final = (
    *("history of one token", "history, one night", "status changes of one token"),
    *("as of, by status", "daily status", "outcomes of all uploads", "outcomes a day"),
    *("outcomes a day, one week", "stuck uploads", "users", "freshness"),
)
EVENTS_BETWEEN_RUNS: Final = 50
"""In five minutes, of which 10 are new tokens: a busy account."""
RUNS_A_YEAR: Final = 365 * 24 * 12
RUNS_KEPT: Final = 90 * 24 * 12
"""Runs whose pages ``prune`` keeps by default."""
ROWS_OF_COPY: Final = 100_000

TABLES: Final = """
select relname, pg_table_size(oid), pg_indexes_size(oid)
from pg_class
where relnamespace = %s::regnamespace and relkind = 'r'
order by pg_total_relation_size(oid) desc
"""
COPY_OF_RUN: Final = """
insert into bench_run
select (jsonb_populate_record(run, jsonb_build_object('run_id', run.run_id + number))).*
from sync_run as run, generate_series(1, %(rows)s) as number
where run_id = (select max(run_id) from sync_run)
"""
COPY_OF_PAGES: Final = """
insert into bench_page
select (jsonb_populate_record(page, jsonb_build_object('run_id', page.run_id + number))).*
from generate_series(1, 1 + %(rows)s / (
    select count(*) from sync_page where run_id = (select max(run_id) from sync_run)
)) as number, sync_page as page
where run_id = (select max(run_id) from sync_run)
"""
SIZE_OF_ROW: Final = """
select pg_total_relation_size('{0}')::float / (select count(*) from {0})
"""


@dataclass(frozen=True, slots=True)
class Size:
    """A table: its rows, and its bytes without and of its indexes."""

    table: str
    rows: int
    table_bytes: int
    index_bytes: int


@dataclass(slots=True)
class Result:
    """What one number of tokens costs."""

    tokens: int
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    sizes: dict[str, list[Size]] = field(default_factory=dict)
    """Of the tables, after each part."""
    run_bytes: float = 0.0
    """Of one row of the ledger, with indexes."""
    page_bytes: float = 0.0
    pages_of_incremental: int = 0


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="./dev bench scale",
        description="What a warehouse costs as it grows: runs, verify, views, report, disk.",
    )
    parser.add_argument(
        "--tokens", type=int, action="append", metavar="N", help="may be repeated; default 1000000"
    )
    parser.add_argument(
        "--part",
        action="append",
        choices=PARTS,
        help="nights: the program's runs on N tokens; history: 3 N versions written by SQL, and "
        "what reads them; views: the same without report and verify; default nights and history",
    )
    parser.add_argument(
        "--archive",
        action="store_true",
        help="keep an archive of the nights, and check it by a replay",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="keep the history's warehouse there; one that an earlier run has left is upgraded "
        "and measured again",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    given = parser.parse_args(arguments)
    sizes = given.tokens or [1_000_000]
    if min(sizes) < 1_000:
        parser.error("at least 1,000 tokens")
    write_bytecode()
    results = []
    for tokens in sizes:
        with tempfile.TemporaryDirectory(prefix="kaltura-etl-bench-") as name:
            folder = Path(name)
            folder.chmod(0o711)  # as root the server runs as another user, who must pass through
            bench = _Bench(Result(tokens), folder)
            for part in given.part or PARTS[:2]:
                if part == "nights":
                    with postgres(folder / "nights") as server:
                        bench.nights(server, archive=given.archive)
                else:
                    kept = given.data and given.data / str(tokens)
                    with postgres(kept or folder / "history") as server:
                        bench.history(server, keep=kept is not None, whole=part == "history")
        results.append(bench.result)
        if given.json is not None:
            whole = {"machine": describe_machine(), "results": [asdict(one) for one in results]}
            given.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


class _Bench:
    """The measurements of one number of tokens; each is printed when it has been made."""

    def __init__(self, result: Result, folder: Path) -> None:
        self.result = result
        self._folder = folder

    # ---- the program's runs -------------------------------------------------------------------

    def nights(self, server: Postgres, *, archive: bool) -> None:
        tokens = self.result.tokens
        rng = random.Random(tokens)
        say(f"{tokens:,} tokens: starting the simulated service")
        with (
            simulator(tokens, "plain") as service,
            server.database("bench_nights", migrated=True) as url,
        ):
            settings = this_program(4).settings(service, url, self._folder)
            kept = self._folder / "archive"
            if archive:
                settings["ETL_ARCHIVE"] = str(kept)

            def run(step: str, *arguments: str) -> dict[str, Any]:
                server.rest("bench_nights")
                measured = measure(
                    [*program(), *arguments, "--json"],
                    settings,
                    server=server,
                    database="bench_nights",
                    service=service,
                )
                return self._keep(step, measured)

            _head(f"{tokens:,} tokens{', with an archive' if archive else ''}")
            run("first load", "sync")
            run("unchanged night", "sync")
            service.change(_some_ids(server, round(tokens * CHANGED_SHARE), 1), rng)
            run("1 % changed", "sync")
            service.change(_some_ids(server, EVENTS_BETWEEN_RUNS, 2), rng)
            run("incremental", "sync", "--mode", "incremental")
            service.change(_some_ids(server, EVENTS_BETWEEN_RUNS, 3), rng)
            said = run("incremental, once more", "sync", "--mode", "incremental")
            self.result.pages_of_incremental = said["pages"]
            run("verify", "verify")
            if archive:
                run("replay --check", "replay", "--check", str(kept))
            with _connected(url) as connection:
                self._sizes("nights", connection)
                self._year(connection)

    # ---- what reads the history ---------------------------------------------------------------

    def history(self, server: Postgres, *, keep: bool, whole: bool) -> None:
        """``whole``: the report and all checks too, which read everything several times."""
        tokens = self.result.tokens
        with server.database("bench_history", migrated=True, keep=keep) as url:
            with _connected(url) as connection:
                if not connection.execute("select 1 from upload_token limit 1").fetchone():
                    write_versions(connection, tokens)
            settings = clean_environment(
                DATABASE_URL=url, KALTURA_PARTNER_ID=PARTNER_OF_HISTORY, HOME=str(self._folder)
            )
            _head(f"{tokens:,} tokens, versions written by SQL")
            page = self._folder / "report.html"
            readers = (
                ("report", ("report", "--output", str(page))),
                ("verify, all versions", ("verify",)),
            )
            for step, arguments in (
                *([("migrate", ("migrate",))] if keep else []),
                *(readers if whole else ()),
            ):
                server.rest("bench_history")
                measured = measure(
                    [*program(), *arguments, "--json"],
                    settings,
                    server=server,
                    database="bench_history",
                )
                self._keep(step, measured)
            with _connected(url) as connection:
                self._views(connection)
                self._sizes("history", connection)

    def _views(self, connection: psycopg.Connection[Any]) -> None:
        """Each query once and by one process, so that processor seconds say what it costs."""
        connection.execute("set max_parallel_workers_per_gather = 0")
        _print("", "| Query | Seconds | Processor seconds | Rows | Load |", "|---|--:|--:|--:|--:|")
        asked = queries()
        for name in VIEWS:
            pid = connection.info.backend_pid
            before, began, rows = processor_seconds(pid), time.perf_counter(), 0
            with connection.cursor() as cursor:
                for _ in cursor.stream(asked[name].encode()):
                    rows += 1
            seconds, work = time.perf_counter() - began, processor_seconds(pid) - before
            load = os.getloadavg()[0]
            self.result.steps[name] = {"seconds": seconds, "server_cpu": work, "rows": rows}
            _print(f"| {name} | {seconds:.2f} | {work:.2f} | {rows:,} | {load:.1f} |")

    # ---- what is left behind ------------------------------------------------------------------

    def _sizes(self, part: str, connection: psycopg.Connection[Any]) -> None:
        found = [
            Size(name, _value(connection, f"select count(*) from {name}"), table, index)  # noqa: S608
            for name, table, index in connection.execute(TABLES, [SCHEMA]).fetchall()
        ]
        self.result.sizes[part] = found
        _print(
            "", "| Table | Rows | MiB | Bytes per row | of them indexes |", "|---|--:|--:|--:|--:|"
        )
        for one in found:
            if one.rows >= self.result.tokens // 1_000:
                whole = one.table_bytes + one.index_bytes
                _print(
                    f"| `{one.table}` | {one.rows:,} | {whole / MIB:,.0f} | "
                    f"{whole / one.rows:.0f} | {one.index_bytes / one.rows:.0f} |"
                )
        everything = sum(one.table_bytes + one.index_bytes for one in found)
        versions = sum(
            one.rows for one in found if one.table in ("upload_token", "upload_token_superseded")
        )
        _print(
            "",
            f"{everything / MIB:,.0f} MiB for {versions:,} versions: "
            f"{everything / self.result.tokens:.0f} bytes per token, "
            f"{everything / versions:.0f} per version.",
        )

    def _year(self, connection: psycopg.Connection[Any]) -> None:
        """What the last run left in the ledger, as often as in a year of runs every 5 minutes."""
        connection.execute("create table bench_run (like sync_run including all)")
        connection.execute("create table bench_page (like sync_page including all)")
        connection.execute(COPY_OF_RUN, {"rows": ROWS_OF_COPY})
        connection.execute(COPY_OF_PAGES, {"rows": ROWS_OF_COPY})
        result = self.result
        result.run_bytes = _value(connection, SIZE_OF_ROW.format("bench_run"))
        result.page_bytes = _value(connection, SIZE_OF_ROW.format("bench_page"))
        pages = result.pages_of_incremental
        _print(
            "",
            f"An incremental run leaves one row of {result.run_bytes:.0f} bytes and {pages} pages "
            f"of {result.page_bytes:.0f} bytes in the ledger. A year of runs every five minutes: "
            f"{RUNS_A_YEAR * result.run_bytes / MIB:,.0f} MiB of runs, and of pages "
            f"{RUNS_KEPT * pages * result.page_bytes / MIB:,.0f} MiB if pruned after 90 days, "
            f"else {RUNS_A_YEAR * pages * result.page_bytes / MIB:,.0f} MiB.",
        )

    # ---- output -------------------------------------------------------------------------------

    def _keep(self, step: str, measured: Measured) -> dict[str, Any]:
        """Print it, remember it, and return what the command said."""
        said: dict[str, Any] = json.loads(measured.output)
        figures = {
            "seconds": measured.seconds,
            "client_cpu": measured.client_cpu,
            "server_cpu": measured.server_cpu,
            "server_background_cpu": measured.server_background_cpu,
            "service_cpu": measured.service_cpu,
            "peak_rss_bytes": measured.peak_rss_bytes,
            "wal_bytes": measured.wal_bytes,
            "rows_written": measured.rows_written,
            "requests": said.get("requests"),
            "load": os.getloadavg()[0],
        }
        self.result.steps[step] = figures
        requests = "" if figures["requests"] is None else f"{figures['requests']:,}"
        _print(
            f"| {step} | {measured.seconds:.1f} | {measured.client_cpu:.1f} "
            f"| {measured.server_cpu:.1f}+{measured.server_background_cpu:.1f} "
            f"| {measured.peak_rss_bytes / MIB:.0f} | {measured.wal_bytes / MIB:,.1f} "
            f"| {requests} | {measured.rows_written:,} | {figures['load']:.1f} |"
        )
        return said


def _some_ids(server: Postgres, wanted: int, seed: int) -> list[str]:
    """Ids of so many listed tokens, from all over the account; others with another seed.

    From the warehouse: the service would answer with all of them, gigabytes of a large account.
    """
    query = (
        f"select token_id from {SCHEMA}.upload_token where is_listed "  # noqa: S608
        f"order by hashtextextended(token_id, {seed}) limit {wanted}"
    )
    return server.column("bench_nights", query)


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(f"set search_path = {SCHEMA}".encode())
        yield connection


def _value(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None  # noqa: S101
    return row[0]


def _head(title: str) -> None:
    machine = "; ".join(f"{name} {value}" for name, value in describe_machine().items())
    _print(
        "",
        f"{title}; {machine}",
        "",
        "| Step | Seconds | Client cpu s | Server cpu s | Peak MiB | WAL MiB "
        "| Requests | Rows written | Load |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    )


def _print(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)
