"""Run the checks in ``sql/checks/``: each selects the rows that break one invariant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from psycopg import sql
from psycopg.rows import dict_row

from etl.errors import ConfigurationError, EtlError
from etl.resources import sql_directory
from etl.warehouse.engine import FEATURE_NOT_SUPPORTED, driver_connection
from etl.warehouse.read.queries import read_only
from etl.warehouse.schema.database import Database

STATEMENT_SECONDS: Final = 3600
NOT_ON_A_STANDBY: Final = "not_on_a_standby"


def check_files() -> list[Path]:
    """The files of the checks, by name."""
    return sorted((sql_directory() / "checks").glob("*.sql"))


def run_check(
    database: Database, statement: str, *, partner_id: int | None, rows_max: int
) -> tuple[list[dict[str, Any]], int]:
    """At most ``rows_max`` of the rows that a check finds, and how many there are.

    For one account or for all; a row whose ``partner_id`` is NULL counts for every account.
    Raises ConfigurationError with the reason ``NOT_ON_A_STANDBY`` for a check of the staging table,
    which is unlogged: a standby does not have its rows.
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
    try:
        with (
            read_only(database, STATEMENT_SECONDS) as connection,
            driver_connection(connection).cursor(row_factory=dict_row) as cursor,
        ):
            rows = cursor.execute(query).fetchall()
    except EtlError as error:
        if error.fields.get("sqlstate") == FEATURE_NOT_SUPPORTED:
            raise ConfigurationError(
                "A standby does not have the rows of the staging table: check them on the primary.",
                reason=NOT_ON_A_STANDBY,
            ) from None
        raise
    total = rows[0]["verify_total"] if rows else 0
    for row in rows:
        del row["verify_total"]
    return rows, total
