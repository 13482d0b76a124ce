"""``./dev campaign``: list the campaigns, run one, or write ``docs/evidence.md``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from tests.campaigns.catalogue import CAMPAIGNS
from tests.campaigns.evidence import PAGE, evidence
from tests.campaigns.runner import run_campaign, tell

EVIDENCE = "evidence"
DESCRIPTION = """Cases that try to break the program, each with a seed that replays it alone.
Without a name: the campaigns.  'all' runs each of them, 'evidence' writes docs/evidence.md from the
results so far (.campaigns/*.jsonl).  Exit 1: a promise was broken; the command that replays the
case is printed."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="./dev campaign",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=[*CAMPAIGNS, "all", EVIDENCE])
    parser.add_argument("--seed", type=int, default=0, help="first seed [0]")
    parser.add_argument(
        "--cases", type=int, help="how many, one for each seed from the first [a moderate number]"
    )
    parser.add_argument(
        "--continue",
        dest="continued",
        action="store_true",
        help="leave out the seeds whose promise held before",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes at a time [2]")
    parser.add_argument(
        "--tokens", type=int, help="size of an account, where it can be chosen (mutation)"
    )
    chosen = parser.parse_args(arguments)
    if chosen.name is None:
        tell(listing())
        return 0
    if chosen.name == EVIDENCE:
        PAGE.write_text(evidence(), encoding="utf-8")
        return 0
    if chosen.seed < 0 or chosen.workers < 1 or (1 if chosen.cases is None else chosen.cases) < 1:
        parser.error("--seed must not be negative; --cases and --workers begin at 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    breaches = 0
    for name, campaign in CAMPAIGNS.items():
        if chosen.name in (name, "all"):
            breaches += run_campaign(
                campaign,
                range(chosen.seed, chosen.seed + (chosen.cases or campaign.in_all)),
                workers=chosen.workers,
                continued=chosen.continued,
                tokens=chosen.tokens,
            )
    return 1 if breaches else 0


def listing() -> str:
    lines = ["usage: ./dev campaign NAME --seed S --cases N [--continue]", ""]
    for name, campaign in CAMPAIGNS.items():
        size = "" if campaign.table is None else f" ({campaign.table} combinations)"
        lines += [f"{name}{size}", f"    {campaign.promise}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
