"""The client against a service that fails, over real sockets.

The server is the simulator, with a fault for a position: login, page, look-up by ids.  Waits are
recorded, not slept; deadlines are real and short.  After each test everything that was logged (at
DEBUG, by any library) and every error that was raised is searched for the secrets.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.service_faults import Seen, Serve, Served, Waits, forbidden_forms, new_server
from tests.support.wire import Authority


@pytest.fixture(autouse=True)
def seen(caplog: pytest.LogCaptureFixture) -> Iterator[Seen]:
    """Search all that was logged and raised for the secrets."""
    everything = Seen()
    with caplog.at_level(logging.DEBUG):
        yield everything
    text = everything.texts(caplog.records)
    for form in forbidden_forms(everything.secrets()):
        assert form not in text


@pytest.fixture
def serve(seen: Seen) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(tls: ssl.SSLContext | None = None) -> Served:
            served = Served(stack.enter_context(new_server(tls=tls)))
            seen.served.append(served)
            return served

        yield start


@pytest.fixture
def service(serve: Serve) -> Served:
    return serve()


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return monkeypatch
