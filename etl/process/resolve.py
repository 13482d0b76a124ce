"""The addresses of a host name, with a deadline, which the system's own function does not have."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from typing import Any


def addresses_of(host: str, port: int, wait_seconds: Callable[[], float]) -> list[Any]:
    """As ``socket.getaddrinfo`` for TCP.  ``host`` is ASCII.

    ``wait_seconds`` says how long to wait before it is asked again, and raises to end the waiting.
    The thread that asks the system is then left behind: nothing can interrupt it.
    """

    def ask() -> list[Any]:
        # For a str, Python would import the tables of international names.
        return socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)

    if _is_address(host):
        return ask()
    answers: queue.SimpleQueue[list[Any] | OSError | UnicodeError] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put(ask())
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=answer, name=f"resolve {host}", daemon=True).start()
    while True:
        try:
            found = answers.get(timeout=wait_seconds())
        except queue.Empty:
            continue
        if isinstance(found, Exception):
            raise found
        return found


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False
