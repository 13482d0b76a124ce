"""The process that starts the embedded Postgres, waits until it has no clients, and stops it.

Run as a script, by its path, with one argument: a JSON object (see :class:`Order`).  It imports
the standard library only, so it starts in a few hundredths of a second and does not depend on the
environment of the client that started it.

Every client holds a shared ``flock`` on one file; this process waits for the exclusive lock on
it.  The kernel drops a client's lock however the client dies, so nothing is left behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import Any, TypedDict

SECONDS_TO_STOP = 60


class Order(TypedDict):
    """What a client asks for.  The descriptors are those of open, inherited files."""

    server: list[str] | None
    """The server's command line; None if it runs already and its reaper was killed."""
    stop: list[str]
    """The command that stops a server which is not our child."""
    run_as: dict[str, Any]
    """``subprocess`` keywords that change to the server's user."""
    environment: dict[str, str]
    clients_fd: int
    """The clients' lock, not locked yet."""
    reaper_fd: int
    """Holds the reaper's lock: while it is open, no client starts another reaper."""
    alive_fd: int
    """Writing end of a pipe that the client watches: it closes when the server is gone."""
    remove: str | None
    """A folder to remove once the server has stopped: that of its socket, if outside the data."""


def main() -> None:
    """Leave the client's process tree, then supervise the server until it has no clients."""
    order: Order = json.loads(sys.argv[1])
    # The client waits for this first process, so that neither leaves a zombie.
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if order["server"] is None:
        fcntl.flock(order["clients_fd"], fcntl.LOCK_EX)
        _run(order, order["stop"])
        unused = True
    else:
        unused = _serve(order, order["server"])
    if unused and order["remove"]:
        shutil.rmtree(order["remove"], ignore_errors=True)
    # The order matters: a client that gets the clients' lock must find the reaper's lock free,
    # or it would count on a reaper that is about to leave.
    os.close(order["reaper_fd"])
    os.close(order["clients_fd"])


def _serve(order: Order, command: list[str]) -> bool:
    """Run the server as our child.  Return True if it was stopped because it has no clients."""
    server = subprocess.Popen(  # noqa: S603 - the client's command
        command,
        cwd="/",
        env=order["environment"],
        stdin=subprocess.DEVNULL,
        **order["run_as"],
    )
    unused = threading.Event()

    def stop_when_unused() -> None:
        fcntl.flock(order["clients_fd"], fcntl.LOCK_EX)
        unused.set()
        server.send_signal(signal.SIGINT)  # a fast shutdown: clients are gone, data are flushed
        try:
            server.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            server.send_signal(signal.SIGQUIT)  # at once; the next start recovers from the WAL

    signal.signal(signal.SIGTERM, lambda *_: server.send_signal(signal.SIGINT))
    threading.Thread(target=stop_when_unused, daemon=True).start()
    server.wait()
    return unused.is_set()


def _run(order: Order, command: list[str]) -> None:
    subprocess.run(  # noqa: S603 - the client's command
        command,
        cwd="/",
        env=order["environment"],
        stdin=subprocess.DEVNULL,
        check=False,
        **order["run_as"],
    )


if __name__ == "__main__":
    main()
