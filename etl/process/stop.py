"""The request to stop: signals set a flag, and the run looks at it where stopping is safe.

The handler only remembers the first signal and wakes every thread that waits.  It takes no lock: a
``threading.Event`` set from a handler can wait forever for a lock that the interrupted code of the
same thread holds.  A signal that comes after the first one changes nothing.

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
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from etl.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stop:
    """A stop that was or was not requested.  Every thread may wait on it and check it."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        # One byte is written, none is ever read: from then on the pipe is readable for all threads.
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._writable, False)
        weakref.finalize(self, _close, self._readable, self._writable)

    def request(self, signal_number: int = signal.SIGTERM) -> None:
        """Ask for a stop.  Safe in a signal handler; the first request counts."""
        if self.signal_number is None:
            self.signal_number = signal_number
            os.write(self._writable, b"\0")

    def wait(self, timeout: float, /) -> bool:
        """Wait up to ``timeout`` seconds; True as soon as a stop is requested."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._readable, select.POLLIN)
        while self.signal_number is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(min(left, 3600) * 1000)  # poll takes a C int of milliseconds
        return True

    def check(self) -> None:
        """Raise ``Interrupted`` if a stop is requested."""
        number = self.signal_number
        if number is not None:
            raise Interrupted(
                f"Stopped by {signal.Signals(number).name}; nothing was published.",
                signal_number=int(number),
            )

    def install(self) -> None:
        """Listen to the signals from now on; main thread only, elsewhere this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            # nohup passes SIGHUP on as ignored.  SIGINT and SIGTERM are always obeyed, even in the
            # background of a shell: a job that gets one is meant to end.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def end(self) -> None:
        """The exit code is decided: a signal during the interpreter's last steps must not
        change it, as its default action would.  Does nothing unless installed."""
        for number in SIGNALS:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_IGN)

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        del frame
        self.request(signal_number)


@contextmanager
def ended_by_signals(said: str) -> Iterator[None]:
    """End the block at a signal, as at Ctrl-C, and raise Interrupted: ``said`` is what that means.

    For what waits for one thing that does not look at a ``Stop``, such as a statement (which
    psycopg then cancels) or an answer at a terminal (whose echo then comes back).
    """
    received: list[int] = []

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    # nohup passes SIGHUP on as ignored.
    numbers = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except BaseException:
        # Closing what was open may have failed for the same reason.
        if not received:
            raise
        raise Interrupted(
            f"Stopped by {signal.Signals(received[0]).name}: {said}", signal_number=received[0]
        ) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
