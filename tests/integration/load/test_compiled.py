"""A statement is compiled once per process, for all engines of one kind of server."""

from __future__ import annotations

import sqlalchemy as sa

from etl.warehouse.compiled import STATEMENTS
from etl.warehouse.schema.database import open_database
from etl.warehouse.schema.tables import build_tables

# A statement of this test's own, so that no other test has compiled it.
COUNTED = sa.select(sa.func.count().label("of_test_compiled")).select_from(build_tables().sync_run)


def compiled() -> list[int]:
    """The compiled statements of ``COUNTED``, by identity."""
    return [id(each) for each in STATEMENTS.values() if "of_test_compiled" in str(each)]


def test_two_engines_share_what_one_has_compiled(database_url: str) -> None:
    found = []
    for _ in range(2):
        with (
            open_database(database_url, "kaltura") as database,
            database.engine.connect() as connection,
        ):
            assert connection.scalar(COUNTED) == 0
        found.append(compiled())

    assert len(found[0]) == 1
    assert found[1] == found[0]
