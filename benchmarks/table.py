"""``./dev bench``: how close a sync is to the limit of this machine; see benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.compare import CASES, CHANGED, UNCHANGED, Comparison, Conditions, compare
from benchmarks.limits import PAGE_SIZE
from benchmarks.machine import describe_machine
from benchmarks.meter import Measured
from benchmarks.service import ACCOUNTS, Delay
from benchmarks.tools import OURS, this_program

MIB = 2**20


def add_conditions(parser: argparse.ArgumentParser, *, tokens: int, rounds: int) -> None:
    """The options that say under which conditions to measure."""
    parser.add_argument(
        "--account",
        action="append",
        choices=ACCOUNTS,
        help="may be repeated; default plain",
    )
    parser.add_argument(
        "--tokens",
        type=int,
        action="append",
        metavar="N",
        help=f"size of the account; may be repeated; default {tokens:,}",
    )
    parser.add_argument(
        "--latency",
        type=float,
        action="append",
        metavar="MS",
        help="delay of each reply; may be repeated; default 0",
    )
    parser.add_argument(
        "--row-latency", type=float, default=0.0, metavar="MS", help="more for each row; default 0"
    )
    parser.add_argument(
        "--concurrency", type=int, default=4, metavar="N", help="requests at a time; default 4"
    )
    parser.add_argument(
        "--runs", type=int, default=rounds, help=f"interleaved rounds; default {rounds}"
    )
    parser.add_argument("--quick", action="store_true", help="20,000 tokens, one round")
    parser.set_defaults(tokens_if_not_given=tokens)


def conditions_of(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[Conditions]:
    """Every combination of the accounts and latencies asked for."""
    sizes, rounds = given.tokens or [given.tokens_if_not_given], given.runs
    if given.quick:
        sizes, rounds = [20_000], 1
    if min(sizes) < 1_000 or rounds < 1 or given.concurrency < 1:
        parser.error("at least 1,000 tokens, one round and one request at a time")
    return [
        Conditions(
            account=account,
            tokens=tokens,
            delay=Delay(latency, given.row_latency),
            concurrency=given.concurrency,
            rounds=rounds,
        )
        for tokens in sizes
        for account in given.account or ["plain"]
        for latency in given.latency or [0.0]
    ]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description="Measure syncs against the limit of this machine.",
        epilog="other commands: ./dev bench profile, peers, waiting, views, scale; each has --help",
    )
    add_conditions(parser, tokens=200_000, rounds=3)
    parser.add_argument("--sync-option", action="append", default=[], help="for kaltura-etl sync")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    given = parser.parse_args(arguments)
    results = []
    for conditions in conditions_of(parser, given):
        say(conditions.title)
        tool = this_program(conditions.concurrency, tuple(given.sync_option))
        result = compare([tool], conditions, churn=False, say=say)
        if result.failures:
            sys.exit(f"the sync failed: {result.failures[OURS]}")
        results.append(result)
        print(describe(result), end="\n\n", flush=True)
    if given.json is not None:
        whole = {"machine": describe_machine(), "results": [asdict(one) for one in results]}
        given.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def spread(values: Sequence[float], form: str) -> str:
    """The median, and the smallest and largest value if there are several."""
    if not values:
        return "-"
    text = format(median(values), form)
    if len(values) == 1:
        return text
    return f"{text} ({format(min(values), form)}-{format(max(values), form)})"


def describe(result: Comparison) -> str:
    """The figures of this program as text."""
    given, rounds = result.conditions, result.rounds
    copy_wal = result.limit(lambda one: one.copied.wal_bytes)
    lines = [
        f"{given.title}; {len(rounds)} rounds: median (smallest-largest)",
        "",
        f"plain fetch of all pages  {spread([r.fetch_seconds for r in rounds], '.2f')} s",
        f"COPY BINARY of all rows   {spread([r.copied.seconds for r in rounds], '.2f')} s, "
        f"{copy_wal / MIB:.1f} MiB of WAL, {copy_wal / given.tokens:.0f} bytes a token",
        "",
        _row(
            "",
            "seconds",
            "/ limit",
            "client",
            "server",
            "µs",
            "waiting",
            "RSS",
            "rows",
            "WAL",
            "dead",
        ),
        _row("", "", "", "cpu s", "cpu s", "/token", "s", "MiB", "written", "MiB", "tuples"),
    ]
    for case in CASES:

        def middle(name: str, case: str = case) -> float:
            return median(result.figures(case, OURS, lambda one: float(getattr(one, name))))

        lines.append(
            _row(
                case,
                spread(result.figures(case, OURS, _seconds), ".2f"),
                spread(result.ratios(case, OURS), ".2f"),
                f"{middle('client_cpu'):.2f}",
                f"{middle('server_cpu'):.2f}+{middle('server_background_cpu'):.2f}",
                f"{median(result.figures(case, OURS, _processor)) / given.tokens * 1e6:.1f}",
                f"{median(result.figures(case, OURS, _waiting)):.2f}",
                f"{middle('peak_rss_bytes') / MIB:.0f}",
                f"{middle('rows_written'):,.0f}",
                f"{middle('wal_bytes') / MIB:.2f}",
                f"{middle('dead_tuples'):,.0f}",
            )
        )
    wal_ratio = median(result.figures(CASES[0], OURS, _wal)) / copy_wal
    quiet = median(result.figures(UNCHANGED, OURS, _wal)) / given.tokens
    report = json.loads(rounds[-1].runs[UNCHANGED][OURS].output)
    changed = json.loads(rounds[-1].runs[CHANGED][OURS].output)
    plain = given.tokens / PAGE_SIZE
    counts = ("inserted", "changed", "absent", "requests")
    lines += [
        "",
        f"first load: {wal_ratio:.2f} of the COPY's WAL",
        f"unchanged night: {quiet:.2f} bytes of WAL a token; {report['requests']} requests, "
        f"{report['requests'] / plain:.3f} of N/{PAGE_SIZE}",
        "1 % changed: " + ", ".join(f"{name} {changed[name]}" for name in counts),
    ]
    return "\n".join(lines)


def _row(*cells: str) -> str:
    widths = (16, 20, 20, 8, 12, 8, 9, 6, 12, 9, 9)
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _seconds(one: Measured) -> float:
    return one.seconds


def _processor(one: Measured) -> float:
    """Of the program and of all processes of the server."""
    return one.client_cpu + one.server_cpu + one.server_background_cpu


def _waiting(one: Measured) -> float:
    return one.seconds - one.client_cpu


def _wal(one: Measured) -> float:
    return float(one.wal_bytes)
