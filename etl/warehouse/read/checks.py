"""Run the checks in ``sql/checks/``: each selects the rows that break one invariant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from psycopg import sql
from psycopg.rows import dict_row

from etl.resources import sql_directory
from etl.warehouse.engine import driver_connection
from etl.warehouse.read.queries import read_only
from etl.warehouse.schema.database import Database

STATEMENT_SECONDS: Final = 3600


def check_files() -> list[Path]:
    """The files of the checks, by name."""
    return sorted((sql_directory() / "checks").glob("*.sql"))


def run_check(
    database: Database, statement: str, *, partner_id: int | None, rows_max: int
) -> tuple[list[dict[str, Any]], int]:
    """At most ``rows_max`` of the rows that a check finds, and how many there are.

    For one account or for all; a row whose ``partner_id`` is NULL counts for every account.
    """
    query = sql.SQL(
        "select found.*, count(*) over () as verify_total from (\n{check}\n) as found {where} "
        "limit {limit}"
    ).format(
        check=sql.SQL(statement.rstrip().removesuffix(";")),
        where=sql.SQL(
            "where found.partner_id is null or found.partner_id = {}"
            if partner_id is not None
            else ""
        ).format(sql.Literal(partner_id)),
        limit=sql.Literal(rows_max),
    )
    with (
        read_only(database, STATEMENT_SECONDS) as connection,
        driver_connection(connection).cursor(row_factory=dict_row) as cursor,
    ):
        rows = cursor.execute(query).fetchall()
    total = rows[0]["verify_total"] if rows else 0
    for row in rows:
        del row["verify_total"]
    return rows, total
