"""``./dev bench``: see benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

from benchmarks import views
from benchmarks.sync_speed import describe, measure


def main() -> None:
    if sys.argv[1:2] == ["views"]:
        views.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        prog="./dev bench", description="Measure syncs against the limit of this machine."
    )
    parser.add_argument("--tokens", type=int, default=200_000, help="default 200000")
    parser.add_argument("--runs", type=int, default=3, help="interleaved rounds, default 3")
    parser.add_argument("--quick", action="store_true", help="20,000 tokens, one round")
    parser.add_argument("--no-stages", action="store_true", help="no extra round by stage")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--sync-option", action="append", default=[], help="for kaltura-etl sync")
    given = parser.parse_args()
    tokens, runs = (20_000, 1) if given.quick else (given.tokens, given.runs)
    if tokens < 1_000 or runs < 1:
        parser.error("at least 1,000 tokens and one round")
    result = measure(
        tokens,
        runs,
        stages=not given.no_stages,
        say=lambda text: print(text, file=sys.stderr, flush=True),
        options=tuple(given.sync_option),
    )
    if given.json is not None:
        machine = {"python": platform.python_version(), "machine": platform.machine()}
        text = json.dumps(machine | result.as_json(), indent=1)
        given.json.write_text(text + "\n", encoding="utf-8")
    print(describe(result))


main()
