"""The program with its extra ``lake``, and DuckDB, in an environment of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lake.lake import Lake
from tests.support.export_sample import Sample, export_sample
from tools.environments import environment


@pytest.fixture(scope="session")
def lake_python() -> Path:
    """The Python of that environment, which is made when it is missing."""
    lock = Path(__file__).with_name("requirements-lake.txt")
    return environment(Path(sys.prefix) / "cache" / "lake", lock) / "bin" / "python"


@pytest.fixture
def sample(database_url: str) -> Iterator[Sample]:
    with export_sample(database_url) as made:
        yield made


@pytest.fixture
def lake(lake_python: Path, sample: Sample, tmp_path: Path) -> Lake:
    return Lake(lake_python, sample.job.database_url, tmp_path / "lake")
