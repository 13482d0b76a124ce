"""Progress of a run: a bar on a terminal, else a log line every 30 seconds."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from etl.process.log import StandardErrorHandler, is_terminal
from etl.process.log_context import with_log_fields

if TYPE_CHECKING:
    import rich.progress

log = logging.getLogger(__name__)

LOG_INTERVAL_SECONDS = 30.0
TOKENS = "tokens"
"""What a run counts."""
TEXT_WIDTH = 84
"""Columns of everything but the bar, with figures of nine digits; on less, pages are left out."""


class Progress(Protocol):
    """Receives the progress of a run.  Called from one thread, at any rate."""

    def stage(self, name: str, *, changes: int | None = None) -> None:
        """What the run does from now on, such as ``publishing`` of so many ``changes``."""

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        """Tokens and pages read so far, of about ``total`` tokens (a hint, or None)."""


class NoProgress:
    def stage(self, name: str, *, changes: int | None = None) -> None:
        """Shows nothing."""

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        """Shows nothing."""


class StageTimes:
    """How long each stage took, in seconds; the first is ``opening``."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seconds: dict[str, float] = {}
        self._stage = "opening"
        self._since = self._began_at = monotonic()

    def begin(self, stage: str) -> None:
        now = self._monotonic()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now

    def total_seconds(self) -> float:
        return round(self._monotonic() - self._began_at, 3)

    def seconds(self) -> dict[str, float]:
        """By stage, in the order in which they began, with the present one so far."""
        self.begin(self._stage)
        return {stage: round(seconds, 3) for stage, seconds in self._seconds.items()}


class TimedProgress:
    """Passes everything on, and tells ``times`` of the stages."""

    def __init__(self, shown: Progress, times: StageTimes) -> None:
        self._shown = shown
        self._times = times

    def stage(self, name: str, *, changes: int | None = None) -> None:
        self._times.begin(name)
        self._shown.stage(name, changes=changes)

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        self._shown.update(tokens, total, pages)


class _Stage:
    """What is known of the present stage.  Read by another thread, so it is replaced as a whole."""

    def __init__(self, name: str, changes: int | None, monotonic: Callable[[], float]) -> None:
        self.name = name
        self.changes = changes
        self.figures: tuple[int, int | None, int] | None = None
        self._began_at = monotonic()
        self._monotonic = monotonic
        self._first_tokens = 0

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        if self.figures is None:
            # A resumed walk begins with what an earlier run has read; that says nothing of speed.
            self._first_tokens = tokens
        # The total was counted before the rows: it may be too small in the end.
        self.figures = tokens, None if total is None else max(total, tokens), pages

    @property
    def seconds(self) -> float:
        return self._monotonic() - self._began_at

    @property
    def tokens_per_second(self) -> float | None:
        """None until there is something to tell."""
        tokens = 0 if self.figures is None else self.figures[0] - self._first_tokens
        return tokens / self.seconds if tokens > 0 and self.seconds > 1 else None


class LogProgress:
    """A log line every so often; ``line`` logs what is known now, whether it has changed or not.

    ``unit``: what is counted; only tokens come in pages.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, *, unit: str = TOKENS
    ) -> None:
        self._monotonic = monotonic
        self._unit = unit
        self._stage: _Stage | None = None

    def stage(self, name: str, *, changes: int | None = None) -> None:
        self._stage = _Stage(name, changes, self._monotonic)

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        if self._stage is None:
            self.stage("reading")
        assert self._stage is not None  # noqa: S101
        self._stage.update(tokens, total, pages)

    def line(self) -> None:
        stage = self._stage
        if stage is None:
            return
        fields: dict[str, object] = {"seconds": round(stage.seconds)}
        if stage.changes is not None:
            fields["changes"] = stage.changes
        if stage.figures is not None:
            tokens, total, pages = stage.figures
            fields |= {self._unit: tokens, "total": total}
            if self._unit == TOKENS:
                fields["pages"] = pages
            rate = stage.tokens_per_second
            fields[f"{self._unit}_per_second"] = None if rate is None else round(rate, 1)
            fields["seconds_left"] = (
                None if rate is None or total is None else round((total - tokens) / rate)
            )
        log.info(stage.name, extra=fields)


class BarProgress:
    """A bar that fills where there is a total, and moves back and forth where there is none."""

    def __init__(
        self, bar: rich.progress.Progress, *, with_pages: bool, unit: str = TOKENS
    ) -> None:
        self._bar = bar
        self._with_pages = with_pages and unit == TOKENS
        self._unit = unit
        self._stage = _Stage("reading", None, time.monotonic)
        self._task = bar.add_task(self._stage.name, total=None, figures="")

    def stage(self, name: str, *, changes: int | None = None) -> None:
        self._stage = _Stage(name, changes, time.monotonic)
        figures = "" if changes is None else f"{changes:,} changes"
        # A new one: rich does not take a total away again.
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name, total=None, figures=figures)

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        self._stage.update(tokens, total, pages)
        rate = self._stage.tokens_per_second
        figures = f"{tokens:,} {self._unit}"
        if self._with_pages:
            figures += f" in {pages:,} pages"
        if rate is not None:
            figures += f"  {rate:,.0f}/s"
        total = None if total is None else max(total, tokens)
        self._bar.update(self._task, completed=tokens, total=total, figures=figures)


@contextmanager
def _lines(progress: LogProgress, interval_seconds: float) -> Iterator[None]:
    """Log a line in this interval by a thread: in publishing, one statement may take minutes."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(interval_seconds):
            progress.line()

    teller = threading.Thread(target=with_log_fields(tell), name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


@contextmanager
def open_progress(
    handler: StandardErrorHandler | None,
    *,
    bar: bool,
    quiet: bool,
    unit: str = TOKENS,
    interval_seconds: float = LOG_INTERVAL_SECONDS,
) -> Iterator[Progress]:
    """A ``Progress`` for one run.  While a bar is shown, log lines are written above it.

    ``unit``: what ``Progress.update`` counts.
    """
    if quiet or handler is None:
        yield NoProgress()
        return
    if not bar:
        progress = LogProgress(unit=unit)
        with _lines(progress, interval_seconds):
            yield progress
        return
    from rich.console import Console  # noqa: PLC0415 - 0.1 s that only a terminal pays
    from rich.file_proxy import FileProxy  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=max(4, min(40, console.width - TEXT_WIDTH))),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        # Our own log lines go through the console, below; nothing else may write.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with display:
        handler.setStream(cast("TextIO", FileProxy(console, sys.stderr)))
        try:
            yield BarProgress(display, with_pages=console.width > TEXT_WIDTH, unit=unit)
        finally:
            handler.setStream(sys.stderr)


def wants_bar(json_log: bool) -> bool:
    """A bar needs a terminal that can move its cursor, and a log that is text."""
    has_cursor = os.environ.get("TERM", "dumb") != "dumb"
    return is_terminal(sys.stderr) and has_cursor and not json_log
