"""A warehouse to export, made once; the tests leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.export_sample import Sample, export_sample
from tests.support.roles import own_database


@pytest.fixture(scope="session")
def sample(postgres_url: str, template_database: str) -> Iterator[Sample]:
    with own_database(postgres_url, template_database) as url, export_sample(url) as made:
        yield made
