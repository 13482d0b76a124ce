"""The file for Prometheus' textfile collector: how the last runs ended, and what is known by then.

A batch job cannot be scraped, so it writes a file that node_exporter reads.  Several jobs may write
to one file: each replaces the samples of its own account and mode, and keeps all others.  Times are
Unix seconds, durations seconds.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from etl.process.whole_file import replace_file

log = logging.getLogger(__name__)

PREFIX: Final = "kaltura_etl_"
ATTEMPT: Final = {
    "last_attempt_time_seconds": "When the last run ended, however it ended.",
    "last_exit_code": "Exit code of the last run.",
}
JOB: Final = {
    "job_accounts": "Accounts of the last job of several accounts, by how they ended.",
}
RUN: Final = {
    "run_duration_seconds": "How long each stage of the last run took.",
    "run_tokens": "Tokens that the last run found, by how they had changed; of a run that did not "
    "get to publish, as far as it had counted them.",
    "run_requests": "Requests of the last run, retries included.",
    "run_retries": "Requests of the last run that were sent again after a failure.",
    "coverage_complete": "1 if the last run has published all tokens of the account, 0 if a part "
    "of them or nothing.",
}
WAREHOUSE: Final = {
    "last_success_time_seconds": "When a run of this mode was published last.",
    "last_complete_time_seconds": "When a run of this mode that was complete was published last.",
    "tokens": "Listed tokens in the warehouse, by status.",
}
_MEANINGS: Final = ATTEMPT | JOB | RUN | WAREHOUSE

FILE_MODE: Final = 0o644
"""The collector is another user."""
SIZE_MAX: Final = 16 * 1024 * 1024
LOCK_SECONDS: Final = 2.0
_LOCK_POLL_SECONDS: Final = 0.02

_ACCOUNT: Final = ("account", "partner_id", "file")
_Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, _Labels], float]
"""Values by name (without the prefix) and labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarehouseState:
    """What the warehouse says of an account after a run.  Times by mode of the ledger."""

    tokens: Mapping[str, int]
    """Listed tokens by the name of their status."""
    published_at: Mapping[str, datetime]
    complete_at: Mapping[str, datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """What a run has come to; 0 is what it did not get to."""

    stage_seconds: Mapping[str, float]
    changes: Mapping[str, int]
    requests: int
    retries: int
    mode: str
    """As in the ledger: a run that was asked for as incremental may be a full one."""
    published_at: datetime | None
    is_complete: bool
    """Whether all tokens of the account were published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How a run ended, or one that could not begin."""

    account: Mapping[str, str]
    """Which account it is about: ``partner_id``, and in a job of many accounts ``account``, its
    name.  If it is none, or not known, ``partner_id`` is empty, and ``file`` names the file."""
    mode: str
    """What was asked for: ``full``, ``incremental`` or ``backfill``."""
    exit_code: int
    run: RunFigures | None
    """None of a job of many accounts: each of them has figures of its own."""
    state: WarehouseState | None
    """None if the warehouse could not be asked: then the file keeps what it said before."""
    accounts: Mapping[str, int] = field(default_factory=dict)
    """Of a job that got as far as its accounts: how many ended in each way."""


def write_metrics(path: Path, attempt: Attempt, *, clock: Callable[[], float] = time.time) -> None:
    """Put an attempt into the file.

    A file that cannot be written is a warning: what was published stays published.
    """
    try:
        with _lock(path.absolute().parent):
            samples = merged(_read(path), attempt, clock())
            registry = CollectorRegistry()
            registry.register(_Collector(samples))
            replace_file(path, generate_latest(registry), mode=FILE_MODE)
    except (OSError, RuntimeError) as error:
        log.warning(
            "the metrics file could not be written",
            extra={
                "path": str(path),
                "reason": getattr(error, "strerror", None) or type(error).__name__,
            },
        )


def merged(before: Samples, attempt: Attempt, now: float) -> Samples:
    """The samples of the file after an attempt that ended ``now``."""
    modes = {str(dict(labels)["mode"]) for _, labels in before if _is_about(labels, attempt)}
    said = {
        (name, tuple(sorted({**attempt.account, **labels}.items()))): value
        for name, labels, value in _said(attempt, now, {attempt.mode, *modes})
    }
    return {key: value for key, value in before.items() if _stays(*key, attempt)} | said


def _stays(name: str, labels: _Labels, attempt: Attempt) -> bool:
    """Whether a sample of the file before is still true."""
    found = dict(labels)
    if not _is_about(labels, attempt):
        # What was said while the account was not known is about one that is known by now.
        return bool(found.get("partner_id") or not attempt.account["partner_id"])
    return attempt.state is None if name in WAREHOUSE else found["mode"] != attempt.mode


def _is_about(labels: _Labels, attempt: Attempt) -> bool:
    return {key: text for key, text in labels if key in _ACCOUNT} == attempt.account


def _said(
    attempt: Attempt, now: float, modes: set[str]
) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels beside those of the account, and value; ``modes``: those in the file."""
    asked = {"mode": attempt.mode}
    yield "last_attempt_time_seconds", asked, now
    yield "last_exit_code", asked, attempt.exit_code
    for outcome, count in attempt.accounts.items():
        yield "job_accounts", {**asked, "outcome": outcome}, count
    if (run := attempt.run) is not None:
        for stage, seconds in run.stage_seconds.items():
            yield "run_duration_seconds", {**asked, "stage": stage}, seconds
        for change, count in run.changes.items():
            yield "run_tokens", {**asked, "change": change}, count
        yield "run_requests", asked, run.requests
        yield "run_retries", asked, run.retries
        yield "coverage_complete", asked, run.is_complete
        if run.published_at is not None:
            at = run.published_at.timestamp()
            yield "last_success_time_seconds", {"mode": run.mode}, at
            if run.is_complete:
                yield "last_complete_time_seconds", {"mode": run.mode}, at
    if (state := attempt.state) is not None:
        for mode, published_at in state.published_at.items():
            yield "last_success_time_seconds", {"mode": mode}, published_at.timestamp()
        for mode, complete_at in state.complete_at.items():
            yield "last_complete_time_seconds", {"mode": mode}, complete_at.timestamp()
        # They are what they are whichever mode was the last: a query may choose any.
        for mode in modes:
            for status, count in state.tokens.items():
                yield "tokens", {"mode": mode, "status": status}, count


class _Collector(Collector):
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Metric]:
        families = {name: Metric(PREFIX + name, text, "gauge") for name, text in _MEANINGS.items()}
        for (name, labels), value in sorted(self._samples.items()):
            families[name].add_sample(PREFIX + name, dict(labels), value)
        return [family for family in families.values() if family.samples]


def _read(path: Path) -> Samples:
    """The samples in the file; none if there is no file, or if it is none of ours."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return {}
        with open(path, encoding="utf-8") as file:
            text = file.read(SIZE_MAX)
        families = list(text_string_to_metric_families(text))
    except (OSError, ValueError):
        return {}
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if sample.name.removeprefix(PREFIX) in _MEANINGS and "mode" in sample.labels
    }


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let no other process read the file until it is replaced: its samples would be lost.

    What is locked is the folder, so that no other file is left in it.  After ``LOCK_SECONDS``, or
    where a folder cannot be locked, it goes on without.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_LOCK_POLL_SECONDS)
                    continue
            except OSError:
                pass
            break
        yield
    finally:
        os.close(descriptor)
