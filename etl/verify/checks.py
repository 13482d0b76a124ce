"""``kaltura-etl verify``: looks for rows that must not be, and derives certificates again.

The checks are the files in ``sql/checks/``: each selects the rows that break one invariant, so none
when all is well.  The certificates are derived a second time, in Python, from the pages
(``etl.verify.certificates``); ``--source`` asks the service itself (``etl.verify.source``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.rows import dict_row

from etl.process.stop import Stop
from etl.resources import sql_directory
from etl.verify.certificates import certificate_breaches
from etl.warehouse.engine import connect, transaction
from etl.warehouse.schema.revision import require_current
from etl.warehouse.schema.tables import build_tables

ROWS_SHOWN: Final = 20
STATEMENT_SECONDS: Final = 3600
CERTIFICATES: Final = "certificates"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found: at most ``ROWS_SHOWN`` rows, and how many there are in all."""

    name: str
    purpose: str
    ok: bool
    rows: list[dict[str, Any]]
    total: int


def check_files() -> list[Path]:
    """The files of the checks, by name."""
    return sorted((sql_directory() / "checks").glob("*.sql"))


def verify(
    url: str,
    schema: str = "kaltura",
    *,
    partner_id: int | None = None,
    stop: Stop | None = None,
) -> list[CheckResult]:
    """Run every check, for one account or for all; changes nothing.

    Each check sees one instant of its own, so a run may publish meanwhile.

    Raises:
        ConfigurationError: the schema is not of this program's version.
        Interrupted: ``stop`` was asked for.
    """
    engine = connect(url)
    try:
        with _reading(engine, schema) as connection:
            require_current(connection, schema)
        results = []
        for path in check_files():
            if stop is not None:
                stop.check()
            with _reading(engine, schema) as connection:
                results.append(_run_check(connection, path, partner_id))
        with _reading(engine, schema) as connection:
            found = certificate_breaches(connection, build_tables(schema), partner_id)
        results.append(
            CheckResult(
                CERTIFICATES,
                "The certificates of the last published runs follow from their pages.",
                not found,
                found[:ROWS_SHOWN],
                len(found),
            )
        )
    finally:
        engine.dispose()
    return results


def _reading(engine: sa.Engine, schema: str) -> Any:
    return transaction(
        engine,
        statement_seconds=STATEMENT_SECONDS,
        transaction_read_only="on",
        search_path=engine.dialect.identifier_preparer.quote(schema),
        work_mem="64MB",
    )


def _run_check(connection: sa.Connection, path: Path, partner_id: int | None) -> CheckResult:
    text = path.read_text(encoding="utf-8")
    purpose = text.partition("\n")[0].removeprefix("--").strip()
    query = sql.SQL(
        "select found.*, count(*) over () as verify_total from (\n{check}\n) as found {where} "
        "limit {limit}"
    ).format(
        check=sql.SQL(text.rstrip().removesuffix(";")),
        where=sql.SQL(
            "where found.partner_id is null or found.partner_id = {}"
            if partner_id is not None
            else ""
        ).format(sql.Literal(partner_id)),
        limit=sql.Literal(ROWS_SHOWN),
    )
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    with driver.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query).fetchall()
    total = rows[0]["verify_total"] if rows else 0
    for row in rows:
        del row["verify_total"]
    return CheckResult(path.stem, purpose, total == 0, rows, total)
