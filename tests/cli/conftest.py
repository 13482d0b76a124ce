"""The program as a process of its own, with nothing of the developer's environment."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.environment import PYTHONPATH

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def clean_environment(tmp_path: Path) -> dict[str, str]:
    """What every run of a test starts from; there is no embedded server in it."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": PYTHONPATH,
        "ETL_DATA_DIR": str(tmp_path / "data"),
    }


@pytest.fixture
def role(database_url: str) -> Iterator[str]:
    """A role without privileges."""
    name = f"loader_{secrets.token_hex(6)}"
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"create role {name}")
        yield name
        owner.execute(f"drop owned by {name}; drop role {name}")


@pytest.fixture
def run(clean_environment: dict[str, str]) -> Run:
    """``run("sync", "--json", KALTURA_KS="x")``: arguments, then variables."""

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "etl", *arguments],
            env=clean_environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call
