"""The program as a process of its own, with nothing of the developer's environment."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import forked

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def clean_environment(tmp_path: Path) -> dict[str, str]:
    """What every run of a test starts from; there is no embedded server in it."""
    return forked.environment(ETL_DATA_DIR=str(tmp_path / "data"))


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
        return forked.call(*arguments, env=clean_environment | variables)

    return call
