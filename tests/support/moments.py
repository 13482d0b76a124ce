"""What publishing keeps beside the versions, for tests that write versions into the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import psycopg

from etl.demo import with_variables
from etl.warehouse.schema.filling import (
    arrival_filling,
    count_filling,
    moment_fillings,
    stay_filling,
)
from etl.warehouse.schema.objects import fill_factor
from etl.warehouse.schema.tables import build_tables

SIXTY_NIGHTS: Final = Path(__file__).parents[2] / "benchmarks" / "views_data.sql"


def write_sixty_nights(connection: psycopg.Connection[Any], tokens: int) -> None:
    """The warehouse that ``./dev bench views`` queries, with so many tokens; not vacuumed.

    Its blocks are filled as those of an old warehouse are by the migrations that fill columns: they
    come before revision 0019, which leaves room in new blocks.
    """
    variables = {"tokens": str(tokens), "first_night": "1", "runs_per_night": "2"}
    statements = with_variables(SIXTY_NIGHTS.read_text(encoding="utf-8"), variables)
    percent = fill_factor(build_tables().upload_token)
    connection.execute("alter table kaltura.upload_token reset (fillfactor)")
    connection.execute(statements.encode())
    connection.execute("set search_path = kaltura")
    connection.execute("analyze")
    fill_moments(connection)
    connection.execute(f"alter table upload_token set (fillfactor = {percent})".encode())


def fill_moments_anew(connection: psycopg.Connection[Any]) -> None:
    """Derive them from the versions as they are now, whatever was published of them."""
    connection.execute("delete from upload_token_status_moment_log")
    for table in ("upload_token", "upload_token_superseded"):
        connection.execute(
            f"update {table} set first_happened_at = null, status_version = null".encode()  # noqa: S608
        )
    connection.execute(
        "update upload_token set first_closed_at = null, earlier_stays = null, went_back = null"
    )
    fill_moments(connection)


def fill_moments(connection: psycopg.Connection[Any]) -> None:
    """Derive the log of status moments and the columns that go with it; the search_path decides.

    These are the statements by which a migration fills an old warehouse.
    """
    connection.execute("delete from upload_token_status_count_log")
    connection.execute("delete from upload_bytes_arrival_log")
    for statement in (*moment_fillings(), stay_filling(), count_filling(), arrival_filling()):
        connection.execute(statement.encode())
