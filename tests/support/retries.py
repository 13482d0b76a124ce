"""Retries without their waits, for runs in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from etl.kaltura import retry
from etl.kaltura.retry import FailureKind
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


@contextmanager
def without_waits() -> Iterator[None]:
    """Nor the wait that a rate limit asks for."""
    limited = FailureKind.RATE_LIMIT
    patience = replace(retry.PATIENCE[limited], least_wait_seconds=0.0)
    with without_retry_waits(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "PATIENCE", {**retry.PATIENCE, limited: patience})
        yield
