"""The wish to stop: signals set a flag, and the run looks at it where stopping is safe.

The handler does nothing but remember the first signal and wake everybody who waits.  It takes no
lock: a ``threading.Event`` set from a handler can wait for ever for a lock that the interrupted
code of the same thread holds.  A signal that comes after the first one changes nothing.

Policy: SIGTERM and SIGINT ask for a stop (exit 143, 130), SIGHUP too (129) unless the program was
started with nohup.  SIGPIPE is ignored, as Python does by itself: a closed pipe is an error of
one write, not the end of the run.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from etl.errors import Interrupted

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)


class Stop:
    """A stop that was or was not asked for.  Every thread may wait on it and check it."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        # One byte is written, none is ever read: from then on the pipe is readable for everybody.
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._writable, False)

    def request(self, signal_number: int = signal.SIGTERM) -> None:
        """Ask for a stop.  Safe in a signal handler; the first request counts."""
        if self.signal_number is None:
            self.signal_number = signal_number
            os.write(self._writable, b"\0")

    def is_set(self) -> bool:
        return self.signal_number is not None

    def wait(self, timeout: float, /) -> bool:
        """Wait up to ``timeout`` seconds; True as soon as a stop is asked for."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._readable, select.POLLIN)
        while self.signal_number is None:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            poll.poll(min(left, 3600) * 1000)  # poll takes a C int of milliseconds
        return self.is_set()

    def check(self) -> None:
        """Raise ``Interrupted`` if a stop is asked for."""
        number = self.signal_number
        if number is not None:
            raise Interrupted(
                f"Stopped by {signal.Signals(number).name}; nothing was published.",
                signal_number=int(number),
            )

    def fileno(self) -> int:
        """A descriptor that becomes readable when a stop is asked for, for ``select``."""
        return self._readable

    def close(self) -> None:
        os.close(self._readable)
        os.close(self._writable)

    def install(self) -> None:
        """Listen to the signals from now on; main thread only, elsewhere this does nothing."""
        self._install()

    @contextmanager
    def installed(self) -> Iterator[Stop]:
        """Listen to the signals inside the block only."""
        previous = self._install()
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def end(self) -> None:
        """The exit code is decided: a signal during the interpreter's last steps must not
        change it, as its default action would.  Does nothing unless installed."""
        for number in SIGNALS:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_IGN)

    def _install(self) -> dict[signal.Signals, Any]:
        """Return the handlers that were replaced."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        previous = {
            number: signal.getsignal(number)
            for number in SIGNALS
            # nohup hands SIGHUP over as ignored.  SIGINT and SIGTERM are always obeyed, also in
            # the background of a shell: whoever sends them to a job means it.
            if number in (signal.SIGINT, signal.SIGTERM)
            or signal.getsignal(number) is not signal.SIG_IGN
        }
        for number in previous:
            signal.signal(number, self._handle)
        return previous

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        del frame
        self.request(signal_number)
