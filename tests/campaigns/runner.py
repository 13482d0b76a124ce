"""Runs the cases of a campaign in processes of their own, and tells how they went."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.util
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from tests.campaigns.campaign import Campaign, Ground, new_ground
from tests.campaigns.catalogue import CAMPAIGNS
from tests.campaigns.results import FOLDER, Result, done_seeds, file_of
from tests.support.environment import scrub_environment
from tests.support.job import ROOT

BREACHES_MAX: Final = 20
"""Then there is more to mend than to count."""
TOLD_SECONDS: Final = 10.0
SAID_MAX: Final = 4_000


class Stuck(BaseException):
    """A case that takes too long; no ``except Exception`` may keep it."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise ``Stuck`` in this thread, the main one, after so long."""

    def ring(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise Stuck(f"stuck: not over after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_one(
    campaign: Campaign, ground: Ground, seed: int, *, program: str, tokens: int | None = None
) -> Result:
    """One case, whatever happens in it."""
    began = time.monotonic()

    def result(**values: object) -> Result:
        seconds = round(time.monotonic() - began, 3)
        return Result(campaign.name, seed, seconds, program, tokens=tokens, **values)  # type: ignore[arg-type]

    try:
        with limited(campaign.stuck_seconds):
            ending = campaign.run(ground, seed)
    except (Exception, Stuck) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error}"[:SAID_MAX]
        return result(breach=f"{said} ({Path(place.filename).name}, line {place.lineno})")
    return result(case=ending.case, result=ending.result, figures=dict(ending.figures))


# --- in a worker ---------------------------------------------------------------------------------


class _Worker:
    """The one campaign and ground of a worker process."""

    campaign: Campaign
    program: str
    tokens: int | None
    ground: Ground
    stack: ExitStack


def _begin(name: str, program: str, tokens: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    scrub_environment()
    logging.disable(logging.CRITICAL)
    _Worker.campaign, _Worker.program, _Worker.tokens = CAMPAIGNS[name], program, tokens
    _Worker.stack = ExitStack()
    _make_ground()
    multiprocessing.util.Finalize(None, _end, exitpriority=100)


def _end_with(parent: int) -> None:
    """A worker does not outlive a parent that was killed; its Postgres stops by itself."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _make_ground() -> None:
    _Worker.ground = _Worker.stack.enter_context(new_ground(tokens=_Worker.tokens))


def _end() -> None:
    _Worker.stack.close()


def _work(seed: int) -> Result:
    result = run_one(
        _Worker.campaign, _Worker.ground, seed, program=_Worker.program, tokens=_Worker.tokens
    )
    if result.breach is not None:
        # What it left may spoil the next case.
        _Worker.stack.close()
        _make_ground()
    return result


# --- in the parent -------------------------------------------------------------------------------


def run_campaign(
    campaign: Campaign,
    seeds: Sequence[int],
    *,
    workers: int = 2,
    continued: bool = False,
    tokens: int | None = None,
    folder: Path = FOLDER,
) -> int:
    """Run cases, write their results, and return how many broke the promise."""
    left = list(seeds)
    if continued:
        known = done_seeds(campaign.name, tokens, folder)
        left = [seed for seed in left if seed not in known]
        tell(f"{campaign.name}: {len(seeds) - len(left)} of {len(seeds)} cases are done already")
    if not left:
        return 0
    folder.mkdir(exist_ok=True)
    began = said = time.monotonic()
    endings: Counter[str] = Counter()
    figures: Counter[str] = Counter()
    breaches = 0
    options = "" if tokens is None else f" --tokens {tokens}"
    with file_of(campaign.name, folder).open("ab") as file:
        for number, result in enumerate(_results(campaign, left, workers, tokens), 1):
            file.write(msgspec.json.encode(result) + b"\n")
            file.flush()
            if result.breach is None:
                endings[result.result] += 1
                figures.update(result.figures)
            else:
                breaches += 1
                tell(
                    f"BREACH, seed {result.seed}: {result.breach}\n"
                    f"  again: ./dev campaign {campaign.name} --seed {result.seed} --cases 1"
                    f"{options}"
                )
                if breaches == BREACHES_MAX:
                    tell(f"{campaign.name}: given up after {breaches} breaches")
                    break
            if time.monotonic() - said > TOLD_SECONDS:
                said = time.monotonic()
                pace = number / (said - began)
                tell(
                    f"{campaign.name}: {number} of {len(left)} cases, {breaches} breaches, "
                    f"{pace * 60:.0f} a minute, {(len(left) - number) / pace:.0f} s left"
                )
    seconds = time.monotonic() - began
    cases = endings.total() + breaches
    tell(f"{campaign.name}: {cases} cases in {seconds:.0f} s, {breaches} breaches")
    for counted in (endings, figures):
        if counted:
            tell("  " + ", ".join(f"{name} {count}" for name, count in counted.most_common()))
    return breaches


def _results(
    campaign: Campaign, seeds: Sequence[int], workers: int, tokens: int | None
) -> Iterator[Result]:
    """The result of each seed, as it comes."""
    waiting = iter(seeds)
    with ProcessPoolExecutor(
        min(workers, len(seeds)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(campaign.name, program_version(), tokens),
    ) as pool:
        running: set[Future[Result]] = set()
        try:
            while True:
                for seed in waiting:
                    running.add(pool.submit(_work, seed))
                    if len(running) >= 2 * workers:
                        break
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for each in done:
                    yield each.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def program_version() -> str:
    """The commit of the checkout."""
    said = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=9"],
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
