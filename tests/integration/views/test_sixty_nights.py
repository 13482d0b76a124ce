"""The warehouse on which views are measured and planned is one that the program could have left."""

from __future__ import annotations

from contextlib import closing
from typing import Final

import psycopg
import pytest

from etl.verify.checks import verify
from tests.support.moments import write_sixty_nights

TOKENS: Final = 2_000
IN_ORDER: Final = {
    "upload_token": "created_at",
    # Those of version 1 are filled before the others.
    "upload_token_superseded": "version > 1, valid_to",
}


@pytest.fixture
def url(database_url: str) -> str:
    with closing(psycopg.connect(database_url, autocommit=True)) as connection:
        write_sixty_nights(connection, TOKENS)
    return database_url


def test_every_check_holds_and_filling_keeps_the_order_of_the_tables(url: str) -> None:
    """Filling writes nearly every row anew: in its order, so that a night is in few blocks."""
    assert {each.name: each.rows for each in verify(url) if not each.ok} == {}
    with closing(psycopg.connect(url)) as connection:
        connection.execute("set search_path = kaltura")
        for table, order in IN_ORDER.items():
            places = (
                f"select row({order}) as here, lag(row({order})) over (order by ctid) as before "  # noqa: S608
                f"from {table}"
            )
            query = f"select count(*) from ({places}) as placed where here < before"  # noqa: S608
            (out_of_order,) = connection.execute(query.encode()).fetchone() or (TOKENS,)
            # Where the table grows, a few rows get the room that is left in earlier blocks.
            assert out_of_order < TOKENS / 50
