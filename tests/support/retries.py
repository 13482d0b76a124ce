"""Retries without their waits, for runs in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from etl.kaltura.service import RetryLimits
from etl.run import service


@contextmanager
def without_retry_waits() -> Iterator[None]:
    """As many attempts as otherwise, one right after the other.

    A pause that the service asks for (Retry-After) is still made.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "RetryLimits", partial(RetryLimits, first_wait_seconds=0.0))
        yield
