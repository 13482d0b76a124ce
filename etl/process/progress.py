"""Progress of a run: a bar on a terminal, else a log line every 30 seconds."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from etl.process.log import StandardErrorHandler, is_terminal

if TYPE_CHECKING:
    import rich.progress

log = logging.getLogger(__name__)

LOG_INTERVAL_SECONDS = 30.0


class Progress(Protocol):
    """Receives the progress of a run.  Called from one thread, at any rate."""

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        """Tokens and pages read so far, of about ``total`` tokens (a hint, or None)."""


class NoProgress:
    def update(self, tokens: int, total: int | None, pages: int) -> None:
        """Shows nothing."""


class LogProgress:
    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._started = self._last = monotonic()

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        now = self._monotonic()
        if now - self._last < LOG_INTERVAL_SECONDS:
            return
        self._last = now
        rate = tokens / (now - self._started)
        left = (total - tokens) / rate if total is not None and rate > 0 else None
        log.info(
            "reading",
            extra={
                "tokens": tokens,
                "total": total,
                "pages": pages,
                "tokens_per_second": round(rate, 1),
                "seconds_left": None if left is None else max(0, round(left)),
            },
        )


class BarProgress:
    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("reading", total=None, pages=0, rate="")
        self._started = time.monotonic()

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        seconds = time.monotonic() - self._started
        rate = f"{tokens / seconds:,.0f}/s" if seconds > 1 else ""
        # The total was counted before the rows: it may be too small in the end.
        total = None if total is None else max(total, tokens)
        self._bar.update(self._task, completed=tokens, total=total, pages=pages, rate=rate)


@contextmanager
def open_progress(
    handler: StandardErrorHandler | None, *, bar: bool, quiet: bool
) -> Iterator[Progress]:
    """A ``Progress`` for one run.  While a bar is shown, log lines are written above it."""
    if quiet or handler is None:
        yield NoProgress()
        return
    if not bar:
        yield LogProgress()
        return
    from rich.console import Console  # noqa: PLC0415 - 0.1 s that only a terminal pays
    from rich.file_proxy import FileProxy  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(
            "{task.completed:,} tokens in {task.fields[pages]:,} pages  {task.fields[rate]}"
        ),
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
            yield BarProgress(display)
        finally:
            handler.setStream(sys.stderr)


def wants_bar(json_log: bool) -> bool:
    """A bar needs a terminal that can move its cursor, and a log that is text."""
    has_cursor = os.environ.get("TERM", "dumb") != "dumb"
    return is_terminal(sys.stderr) and has_cursor and not json_log
