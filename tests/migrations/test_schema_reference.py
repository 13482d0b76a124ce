"""docs/reference/schema.md says what the comments of a migrated database say."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl.warehouse.schema.reference import FILE_NAME, RELATIONS, describe
from etl.warehouse.schema.revision import migrate, open_connection
from etl.warehouse.schema.tables import build_tables
from etl.warehouse.schema.views import read_comments

PAGE = Path(__file__).parents[2] / "docs" / "reference" / FILE_NAME


@pytest.mark.postgres15
def test_the_page_is_what_the_database_says(database_url: str) -> None:
    with open_connection(database_url) as connection:
        page = describe(connection)
    written = PAGE.read_text(encoding="utf-8")
    assert page == written, "run: python -m etl.warehouse.schema.reference docs/reference"


def test_the_page_of_another_schema_is_the_same(empty_database_url: str) -> None:
    strange = 'Two "Words'
    migrate(empty_database_url, strange)
    with open_connection(empty_database_url) as connection:
        assert describe(connection, strange) == PAGE.read_text(encoding="utf-8")


def test_the_picture_names_tables_that_are_there() -> None:
    named = {name for one, _, other, _ in RELATIONS for name in (one, other)}
    assert named <= {table.name for table in build_tables(None).metadata.tables.values()}


def test_comments_are_read_from_the_head_of_a_file() -> None:
    comment, columns = read_comments(
        "-- What it is.\n"
        "--\n"
        "-- More of it, in a\n"
        "-- second paragraph.\n"
        "--\n"
        "-- Columns not named here are those of upload_token_superseded.\n"
        "-- token_id: The id: bytewise,\n"
        "--   it's said.\n"
        "-- day: A day.\n"
        "create view x as\n"
        "-- version: no part of it\n"
        "select 1"
    )
    assert comment == "What it is.\nMore of it, in a second paragraph."
    assert columns == {"token_id": "The id: bytewise, it's said.", "day": "A day."}
