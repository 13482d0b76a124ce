"""The moments of a run: everything that it does outside itself, in one count.

Each request to the service, each piece that it sends to Postgres and each that it gets from there
is a moment, so "before" and "after" every statement and commit are among them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from etl.simulator import SimulatorServer
from etl.simulator.faults import RequestInfo
from tests.support.relay import PIECE_BYTES, Piece, Relay


@dataclass
class Moments:
    """Counts moments from 0; at each number of ``acts`` it calls what is there, once.

    What that returns is how many bytes still pass of a piece that is just on its way to or from
    Postgres; None for all of them.  A request to the service is answered in any case.
    """

    acts: dict[int, Callable[[], int | None]] = field(default_factory=dict)
    count: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    """Something was done."""
    where: str = ""
    """What the run was doing then."""
    error: BaseException | None = None
    """What went wrong in doing it."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def piece(self, piece: Piece) -> int | None:
        return self._pass(f"{piece.direction} of Postgres")

    def request(self, info: RequestInfo) -> None:
        self._pass(f"request to the service ({info.position})")

    def _pass(self, where: str) -> int | None:
        with self._lock:
            act = self.acts.get(self.count)
            self.count += 1
        if act is None:
            return None
        self.where = self.where or where
        try:
            return act()
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.reached.set()


@contextmanager
def watched(
    server: SimulatorServer,
    relay: Relay,
    moments: Moments,
    *,
    reset: bool = False,
    piece_bytes: int = PIECE_BYTES,
) -> Iterator[None]:
    """Count what happens at both ends meanwhile."""
    relay.begin(moments.piece, reset=reset, piece_bytes=piece_bytes)
    server.faults.decide_by = moments.request
    try:
        yield
    finally:
        server.faults.clear()
        relay.end()
        if moments.error is not None:
            raise moments.error
