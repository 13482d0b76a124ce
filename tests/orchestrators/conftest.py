"""Orchestrators and validators for the tests of the recipes, each in an environment of its own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import LEFT_OUT
from tools.environments import environment

LOCKS = Path(__file__).parent
NEEDS_SYSTEMD = "systemd-analyze (Debian: systemd)"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "systemd: needs systemd-analyze")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if item.get_closest_marker("systemd")]
    if left_out and not shutil.which("systemd-analyze"):
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        config.stash[LEFT_OUT][NEEDS_SYSTEMD] = len(left_out)


def _programs(name: str) -> Path:
    """The folder of the programs of an environment; it is made when it is missing."""
    folder = Path(sys.prefix) / "cache" / "orchestrators" / name
    return environment(folder, LOCKS / f"requirements-{name}.txt") / "bin"


@pytest.fixture(scope="session")
def airflow_programs() -> Path:
    return _programs("airflow")


@pytest.fixture(scope="session")
def dagster_programs() -> Path:
    return _programs("dagster")


@pytest.fixture(scope="session")
def validators() -> Path:
    """kubernetes-validate, check-jsonschema and hadolint."""
    return _programs("validators")
