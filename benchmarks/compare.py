"""Interleaved rounds: the limits, then each case with every tool, soon after each other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.limits import Copied, copy_plainly, fetch_plainly, rows_for_copy
from benchmarks.meter import Measured, RunFailed, measure
from benchmarks.postgres import Postgres, postgres
from benchmarks.program import write_bytecode
from benchmarks.service import Delay, Simulator, simulator
from benchmarks.tools import Tool

FIRST, UNCHANGED, CHANGED = "first load", "unchanged night", "1 % changed"
CASES = (FIRST, UNCHANGED, CHANGED)
CHURN = {"delete": 1.0, "insert": 1.0, "change": 0.5, "mode": "hostile"}
"""Events after each list request: tokens that have been read are deleted, others are inserted."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under which a comparison is made."""

    account: str
    tokens: int
    delay: Delay
    concurrency: int
    rounds: int

    @property
    def title(self) -> str:
        text = f"{self.account} account, {self.tokens:,} tokens"
        if self.delay.milliseconds or self.delay.per_row:
            text += f", {self.delay.milliseconds:g} ms a page"
            if self.delay.per_row:
                text += f" and {self.delay.per_row:g} ms a row"
            return f"{text}, {self.concurrency} at a time"
        return f"{text}, 0 ms"


@dataclass(slots=True)
class Round:
    fetch_seconds: float
    copied: Copied
    runs: dict[str, dict[str, Measured]] = field(default_factory=dict)
    """By case, by tool."""

    @property
    def limit_seconds(self) -> float:
        return max(self.fetch_seconds, self.copied.seconds)

    def ratio(self, case: str, tool: str) -> float:
        return self.runs[case][tool].seconds / self.limit_seconds


@dataclass(slots=True)
class Comparison:
    conditions: Conditions
    postgres_version: str
    rounds: list[Round] = field(default_factory=list)
    lost: dict[str, list[int]] = field(default_factory=dict)
    """By tool: tokens listed all through a walk with churn, and missing after it; by round."""
    failures: dict[str, str] = field(default_factory=dict)
    """By tool: why it could not be measured."""

    def figures(self, case: str, tool: str, value: Callable[[Measured], float]) -> list[float]:
        return [value(one.runs[case][tool]) for one in self.rounds if tool in one.runs[case]]

    def ratios(self, case: str, tool: str) -> list[float]:
        return [one.ratio(case, tool) for one in self.rounds if tool in one.runs[case]]

    def limit(self, value: Callable[[Round], float]) -> float:
        return median(value(one) for one in self.rounds)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one tool keeps its tokens in one round."""

    tool: Tool
    database: str
    url: str
    folder: Path


class _Bench:
    """One server and one simulated service for each round."""

    def __init__(self, conditions: Conditions, server: Postgres, folder: Path, say: Say) -> None:
        self._conditions = conditions
        self._server = server
        self._folder = folder
        self._say = say
        self._rows: bytes | None = None

    def round(self, number: int, tools: Sequence[Tool], result: Comparison, churn: bool) -> None:
        """Measure every tool that has not failed; the order changes from round to round."""
        given = self._conditions
        turn = number % len(tools)
        ordered = [*tools[turn:], *tools[:turn]]
        with simulator(given.tokens, given.account) as service, ExitStack() as held:
            if self._rows is None:
                self._say("preparing the rows for the plain COPY")
                self._rows = rows_for_copy(service)
            places = [self._place(held, number, tool) for tool in ordered]
            one = self._limits(service, places[0].database)
            result.rounds.append(one)
            self._say(
                f"round {number + 1}: fetch {one.fetch_seconds:.2f} s, "
                f"COPY {one.copied.seconds:.2f} s"
            )
            for case in CASES:
                if case != FIRST:
                    service.pass_day(number, first=case == UNCHANGED, changes=case == CHANGED)
                one.runs[case] = {}
                for place in places:
                    if place.tool.name not in result.failures:
                        self._case(service, place, case, one, result)
            if churn:
                for seed, tool in enumerate(ordered):
                    if tool.name not in result.failures:
                        place = self._place(held, number, tool, "churn")
                        self._churn(service, place, seed, result)

    def _place(self, held: ExitStack, number: int, tool: Tool, what: str = "nights") -> _Place:
        name = f"bench_{what}_{number}_{tool.name}".replace("-", "_").lower()
        folder = self._folder / name
        folder.mkdir()
        url = held.enter_context(
            self._server.database(name, migrated=tool.migrated, work_mem=tool.work_mem)
        )
        return _Place(tool, name, url, folder)

    def _limits(self, service: Simulator, database: str) -> Round:
        given = self._conditions
        assert self._rows is not None  # noqa: S101
        copied = copy_plainly(self._server, database, self._rows)
        self._server.rest(database)
        service.delay_replies(given.delay)
        # Without a delay, more connections only wait for each other.
        has_delay = given.delay.milliseconds or given.delay.per_row
        fetched = fetch_plainly(
            service, given.tokens, connections=given.concurrency if has_delay else 1
        )
        return Round(fetched, copied)

    def _case(
        self, service: Simulator, place: _Place, case: str, one: Round, result: Comparison
    ) -> None:
        name = place.tool.name
        self._server.rest(place.database)
        try:
            measured = self._run(service, place)
        except RunFailed as failed:
            result.failures[name] = f"{case}: {failed}"
            self._say(f"  {case}: {name} failed: {failed}")
            return
        one.runs[case][name] = measured
        missing = len(service.listed_ids() - self._known(place))
        self._say(f"  {case}: {name} {measured.seconds:.2f} s = {one.ratio(case, name):.2f} limits")
        if missing:
            result.failures[name] = f"{case}: {missing} tokens are missing in its table"
            self._say(f"  {case}: {name} has lost {missing} tokens")

    def _churn(self, service: Simulator, place: _Place, seed: int, result: Comparison) -> None:
        """A first load while the account changes; another ``seed`` inserts other ids."""
        since = service.mark()
        service.control("churn", {**CHURN, "seed": seed})
        try:
            self._run(service, place)
        except RunFailed as failed:
            result.failures[place.tool.name] = f"churn: {failed}"
            return
        finally:
            service.control("churn", {})
        throughout = service.listed_throughout(since)
        lost = len(throughout - self._known(place))
        result.lost.setdefault(place.tool.name, []).append(lost)
        self._say(f"  churn: {place.tool.name} lost {lost} of {len(throughout)}")

    def _run(self, service: Simulator, place: _Place) -> Measured:
        return measure(
            list(place.tool.command),
            place.tool.settings(service, place.url, place.folder),
            server=self._server,
            database=place.database,
            service=service,
        )

    def _known(self, place: _Place) -> set[Any]:
        return set(self._server.column(place.database, place.tool.listed))


def compare(tools: Sequence[Tool], conditions: Conditions, *, churn: bool, say: Say) -> Comparison:
    """Measure every tool in every case, ``conditions.rounds`` times; with ``churn``, losses too.

    A tool that fails once is left out from then on, and is in ``failures``.
    """
    write_bytecode()
    with tempfile.TemporaryDirectory(prefix="kaltura-etl-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root the server runs as another user, who must pass through
        with postgres(folder / "warehouse") as server:
            result = Comparison(conditions, server.version)
            bench = _Bench(conditions, server, folder, say)
            for number in range(conditions.rounds):
                bench.round(number, tools, result, churn)
    return result
