"""``kaltura-etl verify``: looks for rows that must not be, and derives certificates again.

The checks are the files in ``sql/checks/``: each selects the rows that break one invariant, so none
when all is well.  The certificates are derived a second time, in Python, from the pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.rows import dict_row

from etl.coverage import EVERYTHING, NEGATIVE_INFINITY, POSITIVE_INFINITY, Coverage
from etl.resources import sql_directory
from etl.stop import Stop
from etl.warehouse.engine import connect, transaction
from etl.warehouse.schema import require_current
from etl.warehouse.tables import Tables, build_tables

ROWS_SHOWN: Final = 20
CERTIFICATES_DERIVED: Final = 20
STATEMENT_SECONDS: Final = 3600
CERTIFICATES: Final = "certificates"
UNREADABLE: Final = "unreadable"
"""Reason of the only holes with which a run may publish."""
FILTERED_BY: Final = ("idIn", "statusIn")


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
            results.append(_derive_certificates(connection, build_tables(schema), partner_id))
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


def _derive_certificates(
    connection: sa.Connection, tables: Tables, partner_id: int | None
) -> CheckResult:
    """Compare the coverage of the last published runs with what their pages prove."""
    run, page = tables.sync_run, tables.sync_page
    query = (
        sa.select(
            run.c.partner_id,
            run.c.run_id,
            run.c.mode,
            run.c.holes,
            sa.cast(run.c.coverage, sa.Text).label("coverage"),
        )
        .where(run.c.status == "succeeded", sa.exists().where(page.c.run_id == run.c.run_id))
        .order_by(run.c.run_id.desc())
        .limit(CERTIFICATES_DERIVED)
    )
    if partner_id is not None:
        query = query.where(run.c.partner_id == partner_id)
    found = []
    for published in connection.execute(query).all():
        breaches = [
            *_page_breaches(connection, page, published.run_id),
            *_coverage_breaches(connection, page, published),
        ]
        found += [
            {"partner_id": published.partner_id, "run_id": published.run_id, **breach}
            for breach in breaches
        ]
    return CheckResult(
        CERTIFICATES,
        "The certificates of the last published runs follow from their pages.",
        not found,
        found[:ROWS_SHOWN],
        len(found),
    )


def _page_breaches(
    connection: sa.Connection, page: sa.Table, run_id: int
) -> list[dict[str, object]]:
    """Pages whose span reaches further than their own rows allow."""
    first, last = (
        sa.cast(sa.func.floor(sa.extract("epoch", column)), sa.BigInteger)
        for column in (page.c.first_created_at, page.c.last_created_at)
    )
    query = sa.select(
        page.c.seq,
        page.c.page_index,
        sa.cast(page.c.span, sa.Text).label("span"),
        sa.func.least(first, last).label("first"),
        sa.func.greatest(first, last).label("last"),
    ).where(
        page.c.run_id == run_id, page.c.span.is_not(None), sa.not_(sa.func.isempty(page.c.span))
    )
    found: list[dict[str, object]] = []
    for row in connection.execute(query):
        (span,) = Coverage.from_sql(row.span)
        # Both ends of the list are proved by a first page only, of either order; a finite end by a
        # row.  A time out of all bounds is kept as NULL, and says nothing here.
        from_row = row.first is None or span.lower >= row.first
        to_row = row.last is None or span.upper <= row.last + 1
        reaches_down, reaches_up = span.lower == NEGATIVE_INFINITY, span.upper == POSITIVE_INFINITY
        if (reaches_down or from_row) and (reaches_up or to_row):
            continue
        found.append({"seq": row.seq, "span": row.span, "first": row.first, "last": row.last})
    return found


def _coverage_breaches(
    connection: sa.Connection, page: sa.Table, published: sa.Row[Any]
) -> list[dict[str, object]]:
    spans = connection.execute(
        sa.select(sa.cast(page.c.span, sa.Text)).where(
            page.c.run_id == published.run_id,
            page.c.span.is_not(None),
            *[sa.not_(page.c.filter.contains(f'"{name}"')) for name in FILTERED_BY],
        )
    ).scalars()
    proved = Coverage(span for text in spans for span in Coverage.from_sql(text))
    claimed = Coverage.from_sql(published.coverage)
    if proved != claimed:
        return [{"claimed": claimed.to_sql(), "proved": proved.to_sql()}]
    if published.mode != "full":
        return []
    stated = [
        span
        for hole in published.holes
        if hole.get("reason") == UNREADABLE
        for span in Coverage.from_sql(str(hole.get("span")))
    ]
    return [
        {"neither_read_nor_a_stated_hole": missing.to_sql()}
        for missing in proved.union(stated).holes(EVERYTHING)
    ]
