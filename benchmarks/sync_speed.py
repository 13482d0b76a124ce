"""How close a sync is to the limit: a first load, an unchanged night, a night with 1 % changes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.limits import PAGE_SIZE, copy_plainly, fetch_plainly, rows_for_copy
from benchmarks.stand import Sync, postgres, simulator, sync, write_bytecode

AIMS = {"first load": 3.0, "unchanged night": 1.5, "1 % changed": 1.8}
CHANGED_SHARE = 0.01


@dataclass(slots=True)
class Round:
    """One of the interleaved runs: the limits and the three syncs, soon after each other."""

    fetch_seconds: float
    copy_seconds: float
    syncs: dict[str, Sync] = field(default_factory=dict)

    @property
    def limit_seconds(self) -> float:
        return max(self.fetch_seconds, self.copy_seconds)

    def ratio(self, case: str) -> float:
        return self.syncs[case].seconds / self.limit_seconds


@dataclass(frozen=True, slots=True)
class Result:
    tokens: int
    rounds: list[Round]
    stages: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "aims": AIMS,
            "rounds": [
                asdict(each) | {"ratios": {case: each.ratio(case) for case in each.syncs}}
                for each in self.rounds
            ],
            "stages": self.stages,
        }


def measure(
    tokens: int,
    runs: int,
    *,
    stages: bool,
    say: Callable[[str], None],
    options: tuple[str, ...] = (),
) -> Result:
    """Measure ``runs`` rounds; then, for ``stages``, one more with the stop watch on."""
    write_bytecode()
    with tempfile.TemporaryDirectory(prefix="kaltura-etl-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root the server runs as another user, who must pass through
        with simulator(tokens) as service, postgres(folder / "warehouse") as server:
            server.make_template()
            say("preparing the rows for the plain COPY")
            rows = rows_for_copy(service)
            rounds = []
            spent: dict[str, dict[str, float]] = {}
            for number in range(runs + stages):
                watch = folder / "stop-watch.json" if number == runs else None
                with server.database(f"bench_{number}"):
                    each = _round(service, server, number, tokens, rows, watch, options)
                seconds = {case: one.seconds for case, one in each.syncs.items()}
                say(
                    f"round {number + 1}{' (stop watch)' if watch else ''}: "
                    f"fetch {each.fetch_seconds:.2f} s, COPY {each.copy_seconds:.2f} s, "
                    + ", ".join(f"{case} {took:.2f} s" for case, took in seconds.items())
                )
                if watch is None:
                    rounds.append(each)
                else:
                    spent = {
                        case: one.stages | {"whole": one.seconds}
                        for case, one in each.syncs.items()
                    }
    return Result(tokens, rounds, spent)


def _round(
    service: Any,
    server: Any,
    number: int,
    tokens: int,
    rows: bytes,
    watch: Path | None,
    options: tuple[str, ...],
) -> Round:
    database = f"bench_{number}"
    copied = copy_plainly(server, database, rows)
    server.rest(database)
    fetched = fetch_plainly(service, tokens)
    each = Round(fetched.seconds, copied)
    each.syncs["first load"] = sync(service, server, database, options=options, stop_watch=watch)
    server.rest(database)
    each.syncs["unchanged night"] = sync(
        service, server, database, options=options, stop_watch=watch
    )
    server.rest(database)
    service.change_some(CHANGED_SHARE, seed=number)
    each.syncs["1 % changed"] = sync(service, server, database, options=options, stop_watch=watch)
    return each


def _spread(values: list[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return f"{format(median(values), form)} ({low}-{high})"


def describe(result: Result) -> str:
    """The figures as text."""
    rounds = result.rounds
    lines = [
        f"{result.tokens:,} tokens, {len(rounds)} rounds: median (smallest-largest)",
        "",
        f"plain fetch of all pages     {_spread([r.fetch_seconds for r in rounds], '.2f')} s",
        f"COPY BINARY of all rows      {_spread([r.copy_seconds for r in rounds], '.2f')} s",
        "",
        f"{'':17}{'seconds':22}{'ratio to the limit':22}{'aim':6}{'processor':11}{'peak RSS':10}",
    ]
    for case, aim in AIMS.items():
        syncs = [each.syncs[case] for each in rounds]
        lines.append(
            f"{case:17}{_spread([s.seconds for s in syncs], '.2f'):22}"
            f"{_spread([each.ratio(case) for each in rounds], '.2f'):22}{aim:<6.1f}"
            f"{median([s.cpu_seconds for s in syncs]):<6.2f}s    "
            f"{max(s.peak_rss_bytes for s in syncs) / 2**20:.0f} MiB"
        )
    quiet = [each.syncs["unchanged night"] for each in rounds]
    written = [s.wal_bytes / result.tokens for s in quiet]
    requests = max(s.report["requests"] for s in quiet)
    plain = result.tokens / PAGE_SIZE
    lines += [
        "",
        f"unchanged night: {_spread(written, '.2f')} bytes of WAL a token; "
        f"{requests} requests, {requests / plain:.3f} of N/500",
    ]
    changed = rounds[-1].syncs["1 % changed"].report
    counts = ("inserted", "changed", "absent", "requests")
    lines.append("1 % changed: " + ", ".join(f"{name} {changed[name]}" for name in counts))
    if result.stages:
        lines += ["", _stage_table(result.stages)]
    return "\n".join(lines)


def _stage_table(stages: dict[str, dict[str, float]]) -> str:
    cases = list(stages)
    names = sorted({name for case in cases for name in stages[case]} - {"whole"})
    for case in cases:
        known = sum(
            value for name, value in stages[case].items() if name in names and name[:4] != "cpu:"
        )
        stages[case]["exit"] = stages[case]["whole"] - known
    names = [name for name in names if not name.startswith("cpu: ")] + [
        "exit",
        "whole",
        *[name for name in names if name.startswith("cpu: ")],
    ]
    rows = [f"{'seconds by stage':30}" + "".join(f"{case:>18}" for case in cases)]
    for name in names:
        values = [stages[case].get(name, 0.0) for case in cases]
        rows.append(f"{name:30}" + "".join(f"{value:18.3f}" for value in values))
    return "\n".join(rows)
