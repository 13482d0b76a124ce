"""``./dev bench profile``: where the time of a sync goes; see benchmarks/README.md."""

from __future__ import annotations

import argparse
import io
import json
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.compare import CASES, CHANGED, FIRST, UNCHANGED, Conditions
from benchmarks.meter import Measured, measure
from benchmarks.postgres import Postgres, postgres
from benchmarks.program import write_bytecode
from benchmarks.service import simulator
from benchmarks.stop_watch import FETCH_THREADS
from benchmarks.table import add_conditions, conditions_of, say
from benchmarks.tools import Tool, this_program

CASE_NAMES = {"first": FIRST, "unchanged": UNCHANGED, "changed": CHANGED}
LINES_OF_PROFILE = 25


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="./dev bench profile",
        description="A sync by stage: seconds, and processor seconds of every process.",
    )
    add_conditions(parser, tokens=100_000, rounds=1)
    parser.add_argument("--case", choices=[*CASE_NAMES, "all"], default="all")
    parser.add_argument(
        "--cprofile",
        type=Path,
        metavar="FILE",
        help="also write a cProfile of the main thread to FILE, of a fetch thread to FILE.fetch; "
        "with several cases or accounts their names are added to FILE",
    )
    parser.add_argument("--sync-option", action="append", default=[], help="for kaltura-etl sync")
    given = parser.parse_args(arguments)
    wanted = CASES if given.case == "all" else (CASE_NAMES[given.case],)
    write_bytecode()
    every = conditions_of(parser, given)
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="kaltura-etl-bench-")))
        folder.chmod(0o711)  # as root the server runs as another user, who must pass through
        server = held.enter_context(postgres(folder / "warehouse"))
        for conditions in every:
            for number in range(conditions.rounds):
                profile = _Profile(server, folder, conditions, number, tuple(given.sync_option))
                file = given.cprofile
                if file is not None and len(every) * conditions.rounds > 1:
                    file = file.with_name(f"{file.name}.{conditions.account}.{number + 1}")
                profile.run(wanted, file)


class _Profile:
    """The nights of one account, under the stop watch as far as they are wanted."""

    def __init__(
        self,
        server: Postgres,
        folder: Path,
        conditions: Conditions,
        number: int,
        options: tuple[str, ...],
    ) -> None:
        self._server = server
        self._folder = folder
        self._conditions = conditions
        self._number = number
        self._options = options

    def run(self, wanted: Sequence[str], cprofile: Path | None) -> None:
        given = self._conditions
        tool = this_program(given.concurrency, self._options)
        database = f"bench_profile_{given.account}_{self._number}"
        with (
            simulator(given.tokens, given.account) as service,
            self._server.database(database, migrated=True) as url,
        ):
            service.delay_replies(given.delay)
            for case in CASES[: CASES.index(wanted[-1]) + 1]:
                if case != FIRST:
                    service.pass_day(self._number, first=case == UNCHANGED, changes=case == CHANGED)
                self._server.rest(database)
                used, watch, file = tool, self._folder / "stop-watch.json", cprofile
                if case in wanted:
                    say(f"{given.title}: {case}")
                    if file is not None and len(wanted) > 1:
                        file = file.with_name(f"{file.name}.{case.replace(' ', '-')}")
                    used = _watched(tool, watch, file)
                measured = measure(
                    list(used.command),
                    used.settings(service, url, self._folder)
                    | {"STOP_WATCH_BEGAN": repr(time.time())},
                    server=self._server,
                    database=database,
                    service=service,
                )
                if case in wanted:
                    spent = json.loads(watch.read_text(encoding="utf-8"))
                    print(_describe(given, case, measured, spent), end="\n\n", flush=True)
                    if file is not None:
                        print(_hottest(file), flush=True)


def _watched(tool: Tool, watch: Path, cprofile: Path | None) -> Tool:
    """The same program under the stop watch."""
    files = {"STOP_WATCH_FILE": str(watch)}
    if cprofile is not None:
        files["STOP_WATCH_CPROFILE"] = str(cprofile.absolute())
    arguments = tool.command[tool.command.index("sync") :]
    return replace(
        tool,
        command=(sys.executable, "-m", "benchmarks.stop_watch", *arguments),
        environment={**tool.environment, **files},
    )


def _describe(conditions: Conditions, case: str, measured: Measured, spent: dict[str, Any]) -> str:
    lines = [f"{conditions.title}: {case}, {measured.seconds:.2f} s", ""]
    lines.append(_row("client, by stage", "calls", "seconds", "cpu s", "waiting"))
    whole = 0.0
    for kind in sorted(spent, key=lambda name: (name != "main", name == "others", name)):
        lines.append(f"{kind}:")
        stages = sorted(spent[kind].items(), key=lambda pair: -pair[1]["seconds"])
        for name, stage in stages:
            seconds, cpu = stage["seconds"], stage["cpu"]
            whole += cpu
            lines.append(
                _row(
                    f"  {name}",
                    f"{stage['calls']:,}",
                    f"{seconds:.3f}",
                    f"{cpu:.3f}",
                    f"{max(seconds - cpu, 0):.3f}",
                )
            )
    main = sum(stage["seconds"] for stage in spent["main"].values())
    exit_seconds = measured.seconds - main
    exit_cpu = measured.client_cpu - whole
    tokens = conditions.tokens
    lines += [
        _row("exit", "", f"{exit_seconds:.3f}", f"{exit_cpu:.3f}", ""),
        "",
        _row("by process", "", "", "cpu s", "µs/token"),
    ]
    for name, cpu in (
        ("client", measured.client_cpu),
        ("server: backends", measured.server_cpu),
        ("server: WAL writer, checkpointer, …", measured.server_background_cpu),
        ("simulated service", measured.service_cpu),
    ):
        lines.append(_row(f"  {name}", "", "", f"{cpu:.2f}", f"{cpu / tokens * 1e6:.1f}"))
    waiting = measured.seconds - measured.client_cpu
    lines.append(_row("  waiting (seconds - client)", "", "", f"{waiting:.2f}", ""))
    return "\n".join(lines)


def _row(name: str, *cells: str) -> str:
    return (f"{name:38}" + "".join(f"{cell:>11}" for cell in cells)).rstrip()


def _hottest(file: Path) -> str:
    """The functions that take the most time by themselves, in both threads."""
    parts = []
    for name in (file, file.with_name(f"{file.name}.{FETCH_THREADS}")):
        text = io.StringIO()
        pstats.Stats(str(name), stream=text).strip_dirs().sort_stats("tottime").print_stats(
            LINES_OF_PROFILE
        )
        parts.append(f"{name}\n{text.getvalue().strip()}")
    return "\n\n".join(parts) + "\n"
