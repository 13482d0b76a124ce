"""``./dev bench waiting``: what a run adds to the time that the service needs; see README.md."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.limits import PAGE_SIZE
from benchmarks.meter import measure
from benchmarks.postgres import Postgres, postgres
from benchmarks.program import program, write_bytecode
from benchmarks.service import Delay, Simulator, simulator
from benchmarks.table import say
from benchmarks.tools import this_program

FULL = ("sync", "--json")
INCREMENTAL = ("sync", "--json", "--mode", "incremental")
BACKFILL = ("backfill", "--json", "--from", "2000-01-01")
CASES = (
    ("full, first load", FULL),
    ("full, unchanged", FULL),
    ("incremental, nothing new", INCREMENTAL),
    ("backfill of everything", BACKFILL),
)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="./dev bench waiting",
        description="Runs against a service that needs long for each reply, as the real one does.",
    )
    parser.add_argument(
        "--tokens", type=int, action="append", metavar="N", help="default 6,000 and 100,000"
    )
    parser.add_argument(
        "--concurrency", type=int, action="append", metavar="N", help="default 4 and 8"
    )
    parser.add_argument("--latency", type=float, default=100.0, metavar="MS", help="default 100")
    parser.add_argument(
        "--row-latency",
        type=float,
        default=0.8,
        metavar="MS",
        help="more for each row; default 0.8, so that a page of 500 takes 500 ms",
    )
    given = parser.parse_args(arguments)
    delay = Delay(given.latency, given.row_latency)
    write_bytecode()
    with tempfile.TemporaryDirectory(prefix="kaltura-etl-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root the server runs as another user, who must pass through
        with postgres(folder / "warehouse") as server:
            for tokens in given.tokens or (6_000, 100_000):
                for concurrency in given.concurrency or (4, 8):
                    print(_table(server, folder, tokens, concurrency, delay), flush=True)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the service was asked for."""

    requests: int
    seconds: float
    """The sum of the delays of its replies."""


def _asked(service: Simulator, since: int, delay: Delay) -> _Asked:
    records = service.control(f"log?since={since}")
    milliseconds = sum(
        delay.milliseconds + delay.per_row * (record["rows"] or 0) for record in records
    )
    return _Asked(len(records), milliseconds / 1000)


def _table(server: Postgres, folder: Path, tokens: int, concurrency: int, delay: Delay) -> str:
    say(f"{tokens:,} tokens, {concurrency} at a time")
    tool = this_program(concurrency)
    page_seconds = (delay.milliseconds + delay.per_row * PAGE_SIZE) / 1000
    lines = [
        f"{tokens:,} tokens, {page_seconds:.2f} s for a page of {PAGE_SIZE}, "
        f"{concurrency} at a time",
        "",
        _row("", "seconds", "start", "requests", "waited for", "ratio"),
    ]
    with (
        simulator(tokens, "plain") as service,
        server.database("bench_waiting", migrated=True) as url,
    ):

        def run(arguments: Sequence[str], used: Delay) -> tuple[float, _Asked]:
            server.rest("bench_waiting")
            service.delay_replies(used)
            since = service.control("status")["requests"]
            measured = measure(
                [*program(), *arguments],
                tool.settings(service, url, folder),
                server=server,
                database="bench_waiting",
                service=service,
            )
            return measured.seconds, _asked(service, since, used)

        taken = {}
        for name, arguments in CASES:
            taken[name] = run(arguments, delay)
        start, _ = run(INCREMENTAL, Delay())
    for name, (seconds, asked) in taken.items():
        needed = asked.seconds / concurrency
        lines.append(
            _row(
                name,
                f"{seconds:.2f}",
                f"{start:.2f}",
                str(asked.requests),
                f"{needed:.2f}",
                f"{(seconds - start) / needed:.2f}",
            )
        )
    ideal = tokens / PAGE_SIZE * page_seconds / concurrency
    full = taken["full, first load"][0]
    lines += [
        "",
        f"N/{PAGE_SIZE} pages: {ideal:.2f} s; first load {(full - start) / ideal:.2f}",
        "",
    ]
    return "\n".join(lines)


def _row(name: str, *cells: str) -> str:
    return (f"{name:26}" + "".join(f"{cell:>12}" for cell in cells)).rstrip()
