"""Analysts' tools for the tests that read views with them, in an environment of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.environments import environment

LOCK = Path(__file__).with_name("requirements-readers.txt")


@pytest.fixture(scope="session")
def readers_python() -> Path:
    """The Python of that environment, which is made when it is missing."""
    return environment(Path(sys.prefix) / "cache" / "readers", LOCK) / "bin" / "python"
