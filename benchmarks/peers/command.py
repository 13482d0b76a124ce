"""``./dev bench peers``: this program beside others; see benchmarks/README.md."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from benchmarks.compare import compare
from benchmarks.peers.environments import PEERS, NotInstalled, Peer, install
from benchmarks.peers.results import RESULTS, Results, entry_of, section
from benchmarks.table import add_conditions, conditions_of, say
from benchmarks.tools import this_program


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="./dev bench peers",
        description="Measure this program and its peers side by side, and write the results to "
        f"benchmarks/{RESULTS.name}.",
    )
    add_conditions(parser, tokens=200_000, rounds=3)
    parser.add_argument(
        "--only",
        action="append",
        choices=[peer.name for peer in PEERS],
        help="this peer alone, beside this program; may be repeated",
    )
    parser.add_argument(
        "--setup", action="store_true", help="make the peers' environments and measure nothing"
    )
    parser.add_argument("--no-write", action="store_true", help="as with --quick: only print")
    given = parser.parse_args(arguments)
    wanted = [peer for peer in PEERS if given.only is None or peer.name in given.only]
    missing = _install(wanted)
    if given.setup:
        sys.exit(1 if missing else 0)
    results = None if given.quick or given.no_write else Results.read()
    for conditions in conditions_of(parser, given):
        say(conditions.title)
        tools = [peer.as_tool() for peer in wanted if peer.name not in missing]
        ours = this_program(conditions.concurrency)
        result = compare([ours, *tools], conditions, churn=True, say=say)
        result.failures.update(missing)
        entry = entry_of(result, command=f"./dev bench peers {shlex.join(arguments)}".strip())
        print(section(entry), flush=True)
        if results is not None:
            results.update(entry)
            results.write()
            say(f"written: {RESULTS}")


def _install(wanted: Sequence[Peer]) -> dict[str, str]:
    """Make what is missing; returns why a peer could not be installed."""
    missing = {}
    for peer in wanted:
        try:
            if install(peer):
                say(f"installed {peer.name}: {peer.versions()}")
        except NotInstalled as failed:
            missing[peer.name] = f"could not be installed: {failed}"
            say(f"{peer.name} {missing[peer.name]}")
    return missing
