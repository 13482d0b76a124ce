"""Runs in this process that wait for nothing."""

from __future__ import annotations

import time
from typing import Final

from etl.process.stop import Stop

WAIT_AT_MOST_SECONDS: Final = 0.001


class HastyStop(Stop):
    """Waits, such as those between two attempts, are asked for as usual, but take no time."""

    def wait(self, timeout: float, /) -> bool:
        time.sleep(min(timeout, WAIT_AT_MOST_SECONDS))
        return super().wait(0)
