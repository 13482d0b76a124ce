"""What cases came to: a line of JSON for each, in a folder that git ignores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from tests.support.job import ROOT

FOLDER: Final = ROOT / ".campaigns"


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One case."""

    campaign: str
    seed: int
    seconds: float
    program: str
    """The commit, with ``-dirty`` if files were changed since."""
    case: str = ""
    result: str = ""
    figures: dict[str, int] = {}
    breach: str | None = None
    """What broke the promise; None if it held."""
    tokens: int | None = None
    """Size of the account, if it was chosen."""


def file_of(campaign: str, folder: Path = FOLDER) -> Path:
    return folder / f"{campaign}.jsonl"


def read_results(campaign: str, folder: Path = FOLDER) -> Iterator[Result]:
    """Oldest first; a line that was cut off when a machine went down is passed over."""
    path = file_of(campaign, folder)
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(Result)
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield decoder.decode(line)


def done_seeds(campaign: str, tokens: int | None, folder: Path = FOLDER) -> set[int]:
    """Seeds that ``--continue`` need not run again: those that held, with the same size."""
    last = {
        each.seed: each.breach for each in read_results(campaign, folder) if each.tokens == tokens
    }
    return {seed for seed, breach in last.items() if breach is None}


class Sum(msgspec.Struct):
    """All cases of a campaign so far."""

    cases: int = 0
    seeds: int = 0
    """Distinct ones."""
    broke: int = 0
    """Seeds that ever broke the promise."""
    mended: int = 0
    """Those of them that held the last time."""
    seconds: float = 0.0
    endings: Counter[str] = msgspec.field(default_factory=Counter)
    figures: Counter[str] = msgspec.field(default_factory=Counter)
    program: str = ""
    """Of the last case."""


def sum_up(results: Iterable[Result]) -> Sum:
    total = Sum()
    last: dict[tuple[int, int | None], str | None] = {}
    broke: set[tuple[int, int | None]] = set()
    for each in results:
        total.cases += 1
        total.seconds += each.seconds
        total.program = each.program
        key = (each.seed, each.tokens)
        last[key] = each.breach
        if each.breach is None:
            total.endings[each.result] += 1
            total.figures.update(each.figures)
        else:
            broke.add(key)
    total.seeds = len(last)
    total.broke = len(broke)
    total.mended = sum(last[key] is None for key in broke)
    return total
