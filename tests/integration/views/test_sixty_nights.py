"""The warehouse on which views are measured and planned is one that the program could have left."""

from __future__ import annotations

from contextlib import closing
from typing import Final

import psycopg
import pytest

from etl.verify.checks import verify
from tests.support.moments import write_sixty_nights

TOKENS: Final = 2_000


@pytest.fixture
def url(database_url: str) -> str:
    with closing(psycopg.connect(database_url, autocommit=True)) as connection:
        write_sixty_nights(connection, TOKENS)
    return database_url


def test_every_check_of_verify_holds(url: str) -> None:
    assert {each.name: each.rows for each in verify(url) if not each.ok} == {}
