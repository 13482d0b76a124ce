"""What ``./dev bench peers`` keeps: results.json, RESULTS.md made of it, and two charts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from benchmarks.compare import CASES, Comparison
from benchmarks.machine import describe_machine
from benchmarks.peers.charts import draw_multiples
from benchmarks.peers.environments import PEERS
from benchmarks.program import ROOT
from benchmarks.table import MIB
from benchmarks.tools import OURS

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
DATA = RESULTS.with_name("results.json")
IMAGES = ROOT / "docs" / "images"
CHARTS = {
    "plain": "Plain file names",
    "hostile": "Commas, quotes, emoji and other scripts in one file name of eight",
}
_FIGURES = (
    *("seconds", "client_cpu", "server_cpu", "server_background_cpu", "peak_rss_bytes"),
    *("wal_bytes", "rows_written", "dead_tuples"),
)
_TITLES = {OURS: "this program"} | {peer.name: peer.title for peer in PEERS}
_HISTORY = {peer.name for peer in PEERS if peer.keeps_history}
TIMES = "\N{MULTIPLICATION SIGN}"
_HEAD = f"""\
# Results

Written by `./dev bench peers`, which [README.md](README.md) describes; do not edit. Seconds are
medians of interleaved rounds of whole processes. *{TIMES} limit* is the multiple of the limit of
the same round: the greater of a plain fetch of all pages and a COPY BINARY of the same rows into a
bare table with a primary key. Compare ratios, not seconds. The peers ask for one page after the
other, as their documentation has it; where replies have a delay, the plain fetch has as many
requests in flight as this program.

*Rows written* counts every table, staging, temporary and system tables too. *Lost* are tokens that
were listed all through a first load during which others were deleted and added, and that are
missing in the table after it.

| Name | What it is | Versions | Keeps history, sees deletions |
|---|---|---|---|
"""

Entry = dict[str, Any]


def entry_of(result: Comparison, *, command: str) -> Entry:
    """The medians of a comparison, as they are kept."""
    given = result.conditions
    tools: dict[str, Any] = {}
    names = dict.fromkeys(
        name for one in result.rounds for runs in one.runs.values() for name in runs
    )
    for name in names:
        cases = {}
        for case in CASES:
            ratios = result.ratios(case, name)
            if ratios:
                cases[case] = {
                    figure: median(result.figures(case, name, _getter(figure)))
                    for figure in _FIGURES
                } | {"ratio": median(ratios), "ratios": [min(ratios), max(ratios)]}
        tools[name] = {"cases": cases, "lost": result.lost.get(name)}
    for name, reason in result.failures.items():
        tools.setdefault(name, {"cases": {}, "lost": None})["failure"] = reason
    for tool in tools.values():
        tool["rounds"], tool["command"] = given.rounds, command
    return {
        "key": f"{given.account} {given.tokens} {given.delay.milliseconds:g} "
        f"{given.delay.per_row:g} {given.concurrency}",
        "title": given.title,
        "conditions": asdict(given),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": describe_machine() | {"postgres": result.postgres_version},
        "limit": {
            "fetch_seconds": result.limit(lambda one: one.fetch_seconds),
            "copy_seconds": result.limit(lambda one: one.copied.seconds),
            "copy_wal_bytes": result.limit(lambda one: one.copied.wal_bytes),
        },
        "tools": tools,
    }


def _getter(figure: str) -> Any:
    return lambda one: getattr(one, figure)


def section(entry: Entry) -> str:
    """One comparison as Markdown."""
    limit, machine, tools = entry["limit"], entry["machine"], entry["tools"]
    commands = dict.fromkeys(f"`{tool['command']}`" for tool in tools.values())
    lines = [
        f"## {entry['title'].capitalize()}",
        "",
        f"{entry['date']}, {machine['processor']}, {machine['memory']}, {machine['system']}, "
        f"Python {machine['python']}, PostgreSQL {machine['postgres']}, commit "
        f"{machine['commit']}, load at the end {machine['load']}.",
        f"{', '.join(commands)}: {tools[OURS]['rounds']} rounds. Limit: fetch "
        f"{limit['fetch_seconds']:.2f} s, COPY {limit['copy_seconds']:.2f} s with "
        f"{limit['copy_wal_bytes'] / MIB:.1f} MiB of WAL.",
        "",
        f"| Case | Tool | Seconds | {TIMES} limit (smallest-largest) | Client cpu s | Server cpu s "
        "| Peak MiB | Rows written | WAL MiB | Dead tuples |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case in CASES:
        for name in _ordered(tools):
            figures = tools[name]["cases"].get(case)
            if figures is not None:
                lines.append(_line(case, name, figures))
    lines += ["", *_ratios_to_peers(tools), *_losses(tools), *_failures(tools)]
    return "\n".join(lines)


def _line(case: str, name: str, figures: dict[str, Any]) -> str:
    low, high = figures["ratios"]
    server = figures["server_cpu"] + figures["server_background_cpu"]
    return (
        f"| {case} | {name} | {figures['seconds']:.2f} | {figures['ratio']:.2f} "
        f"({low:.2f}-{high:.2f}) | {figures['client_cpu']:.2f} | {server:.2f} | "
        f"{figures['peak_rss_bytes'] / MIB:.0f} | {figures['rows_written']:,.0f} | "
        f"{figures['wal_bytes'] / MIB:.2f} | {figures['dead_tuples']:,.0f} |"
    )


def _ordered(tools: dict[str, Any]) -> list[str]:
    return [name for name in _TITLES if name in tools]


def _ratios_to_peers(tools: dict[str, Any]) -> list[str]:
    """How much faster than the fastest peer that keeps history, by case."""
    found = []
    for case in CASES:
        ours = tools[OURS]["cases"].get(case)
        peers = [
            (tools[name]["cases"][case], name)
            for name in _ordered(tools)
            if name in _HISTORY and case in tools[name]["cases"]
        ]
        if ours and peers:
            fastest, name = min(peers, key=lambda pair: float(pair[0]["ratio"]))
            wal = fastest["wal_bytes"] / max(ours["wal_bytes"], 1)
            found.append(
                f"{case} {fastest['ratio'] / ours['ratio']:.1f} {TIMES} faster than {name}, "
                f"{wal:.1f} {TIMES} less WAL"
            )
    return [f"Against the fastest peer with history: {'; '.join(found)}.", ""] if found else []


def _losses(tools: dict[str, Any]) -> list[str]:
    found = [
        f"{name} {_span(tools[name]['lost'])}" for name in _ordered(tools) if tools[name]["lost"]
    ]
    return [f"Lost: {', '.join(found)}.", ""] if found else []


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _failures(tools: dict[str, Any]) -> list[str]:
    return [
        line
        for name in _ordered(tools)
        if tools[name].get("failure")
        for line in (f"**{name} was not measured to the end.** {tools[name]['failure']}", "")
    ]


@dataclass(slots=True)
class Results:
    """All comparisons that have been made, by key."""

    entries: dict[str, Entry]

    @classmethod
    def read(cls) -> Results:
        if not DATA.exists():
            return cls({})
        return cls({one["key"]: one for one in json.loads(DATA.read_text(encoding="utf-8"))})

    def update(self, entry: Entry) -> None:
        """Replace the comparison under the same conditions; peers not measured now stay."""
        before = self.entries.get(entry["key"])
        if before is not None:
            entry = entry | {"tools": before["tools"] | entry["tools"]}
        self.entries[entry["key"]] = entry

    def write(self) -> None:
        """Write the data, the page, and a chart for each account that has one."""
        entries = sorted(self.entries.values(), key=_order)
        DATA.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        RESULTS.write_text(self._page(entries), encoding="utf-8")
        for account, title in CHARTS.items():
            shown = [
                one
                for one in entries
                if one["conditions"]["account"] == account
                and not any(one["conditions"]["delay"].values())
            ]
            if shown:
                most = max(shown, key=lambda one: int(one["conditions"]["tokens"]))
                tools = {
                    _label(name): {
                        case: one["ratio"] for case, one in most["tools"][name]["cases"].items()
                    }
                    for name in _ordered(most["tools"])
                }
                subtitle = (
                    f"{most['conditions']['tokens']:,} tokens, seconds as multiples of the limit"
                )
                IMAGES.mkdir(parents=True, exist_ok=True)
                draw_multiples(IMAGES / f"benchmark-{account}.svg", title, subtitle, tools)

    def _page(self, entries: Sequence[Entry]) -> str:
        rows = [f"| {OURS} | {_TITLES[OURS]}: `sync`, everything on | this checkout | yes |"]
        rows += [
            f"| {peer.name} | {peer.title} | {peer.versions()} | "
            f"{'yes' if peer.keeps_history else 'no'} |"
            for peer in PEERS
        ]
        parts = [_HEAD + "\n".join(rows), *_accounts_compared(entries)]
        return "\n\n".join([*parts, *[section(one).rstrip() for one in entries]]) + "\n"


def _label(name: str) -> str:
    return name if name == OURS or name in _HISTORY else f"{name}, no history"


def _order(entry: Entry) -> tuple[Any, ...]:
    given = entry["conditions"]
    delay = given["delay"]
    return (
        -given["tokens"],
        delay["milliseconds"] + 500 * delay["per_row"],
        given["concurrency"],
        list(CHARTS).index(given["account"]) if given["account"] in CHARTS else len(CHARTS),
        given["account"],
    )


def _accounts_compared(entries: Sequence[Entry]) -> list[str]:
    """This program on each account as a multiple of the plain one, under the same conditions."""
    lines = []
    plain = {
        _without_account(one): one for one in entries if one["conditions"]["account"] == "plain"
    }
    for entry in entries:
        base = plain.get(_without_account(entry))
        if base is None or base is entry:
            continue
        ratios = [
            f"{case} {mine['ratio'] / base['tools'][OURS]['cases'][case]['ratio']:.2f} {TIMES}"
            for case, mine in entry["tools"][OURS]["cases"].items()
            if case in base["tools"][OURS]["cases"]
        ]
        lines.append(f"- {entry['title']}: {', '.join(ratios)}")
    if not lines:
        return []
    return ["This program on other accounts, against the plain one:\n\n" + "\n".join(lines)]


def _without_account(entry: Entry) -> str:
    return str(entry["key"]).partition(" ")[2]
