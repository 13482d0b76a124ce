"""The page asks for the news of a night without reading all versions: plans, analyzed."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg
import pytest

from etl.report.read import read_report
from etl.resources import sql_directory
from etl.warehouse.read.queries import Reader
from tests.support.moments import write_sixty_nights
from tests.support.plans import nodes_of, rows_read, scans

TOKENS = 6_000
DAYS = 3
VERSIONS = ("upload_token", "upload_token_superseded", "upload_token_status_moment_log")
MOST = {
    # The share of the stored rows of each of these that may be read: there are 60 nights.
    "changes": (0.1, 0.02, 0.02),
    "failed": (0.15, 0.02, 0.05),
    "newest": (0.001, 0, 0),
    "stuck": (0.1, 0, 0),
    "users": (0.1, 0.01, 0),
    "vanished": (0.05, 0, 0),
}
"""And nothing is read for the others, but for these."""
ALL_TOKENS = {"freshness", "outcomes"}
"""The tokens are counted, by an index; and eight weeks of them are half of all."""


def test_no_query_reads_all_versions(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, list[dict[str, Any]]] = {}
    read_rows = Reader.rows

    def explained(self: Reader, name: str, **parameters: object) -> list[dict[str, Any]]:
        text = (sql_directory() / "report" / f"{name}.sql").read_text(encoding="utf-8")
        (row,) = self.query(f"explain (analyze, format json) {text}", parameters)
        found[name] = nodes_of(row["QUERY PLAN"][0]["Plan"])
        return read_rows(self, name, **parameters)

    with closing(psycopg.connect(database_url, autocommit=True)) as connection:
        write_sixty_nights(connection, TOKENS)
        # What may have been pruned is looked for, too.
        connection.execute(
            "insert into pruning (partner_id, kind, horizon, deleted, program_version) "
            "values (101, 'versions', '2020-01-01', 1, '')"
        )
        connection.execute("vacuum analyze")
        stored = {}
        for table in VERSIONS:
            row = connection.execute(f"select count(*) from {table}".encode()).fetchone()  # noqa: S608
            assert row is not None
            stored[table] = row[0]
    monkeypatch.setattr(Reader, "rows", explained)
    rows = read_report(database_url, "kaltura", partner_id=101, days=DAYS, time_zone="UTC")

    assert rows.changes is not None
    assert rows.failed
    assert rows.stuck
    assert found.keys() == {path.stem for path in (sql_directory() / "report").glob("*.sql")} - {
        "accounts"
    }
    for name, nodes in found.items():
        tables = VERSIONS[1:] if name in ALL_TOKENS else VERSIONS
        used = {scan for table in tables for scan in scans(nodes, table)}
        assert "Seq Scan" not in used, (name, used)
        most = dict(zip(VERSIONS, MOST.get(name, (0, 0, 0)), strict=True))
        read = {table: rows_read(nodes, table) / stored[table] for table in tables}
        assert {table: read[table] for table in tables if read[table] > most[table]} == {}, name
