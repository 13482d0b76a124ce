"""Analysts' tools read every view and table in whole: every row, and columns of fitting types.

What a tool cannot read is named here and in ``docs/reference/views.md``, with what to read instead.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from etl.warehouse.read.extract import exportable
from tests.support.export_sample import export_sample
from tests.support.relay import relay_before

PROGRAM = Path(__file__).with_name("read_views.py")
ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "examples" / "grafana" / "kaltura-uploads.json"
VIEWS_PAGE = ROOT / "docs" / "reference" / "views.md"

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]

NUMBER: Final = ("smallint", "integer", "bigint")
POLARS: Final = {
    **{kind: {"Int16", "Int32", "Int64"} for kind in NUMBER},
    "double precision": {"Float64"},
    "text": {"String"},
    "boolean": {"Boolean"},
    "date": {"Date"},
    "timestamp with time zone": {"Datetime(time_unit='us', time_zone='UTC')"},
    "text[]": {"List(String)"},
}
DUCKDB: Final = {
    **{kind: {"SMALLINT", "INTEGER", "BIGINT"} for kind in NUMBER},
    "double precision": {"DOUBLE"},
    "text": {"VARCHAR"},
    "boolean": {"BOOLEAN"},
    "date": {"DATE"},
    "timestamp with time zone": {"TIMESTAMP WITH TIME ZONE"},
    "text[]": {"VARCHAR[]"},
    "interval": {"INTERVAL"},
}
NOTHING: Final = {"Null"}
"""What polars makes of rows of Python if all of them are NULL."""
FITTING: Final[dict[str, dict[str, set[str]]]] = {
    "polars_adbc": POLARS,
    "polars_connectorx": POLARS | {"numeric": {"Decimal(precision=38, scale=10)"}},
    "polars_sqlalchemy": {kind: fitting | NOTHING for kind, fitting in POLARS.items()}
    | {"interval": {"Duration(time_unit='us')"} | NOTHING},
    "pandas": {
        **{kind: {"Int64", "object"} for kind in NUMBER},
        # convert_dtypes() makes integers of numbers that are whole.
        "double precision": {"Float64", "Int64"},
        "numeric": {"Float64", "Int64"},
        "text": {"string", "object"},
        "boolean": {"boolean"},
        "timestamp with time zone": {"datetime64[us, UTC]", "object"},
        "interval": {"timedelta64[us]"},
    },
    "duckdb_attached": DUCKDB | {"numeric": {"DOUBLE"}},
    "duckdb_adbc": DUCKDB,
    "sqlalchemy": {
        **{kind: {kind.upper()} for kind in (*NUMBER, "double precision", "boolean", "date")},
        **{kind: {kind.upper()} for kind in ("numeric", "interval", "jsonb", "bytea")},
        **{kind: {kind.upper()} for kind in ("int8range", "int8multirange", "tstzrange")},
        "text": {"TEXT", 'TEXT COLLATE "C"'},
        "timestamp with time zone": {"TIMESTAMP"},
        "text[]": {"ARRAY"},
    },
}
"""By reader and type of Postgres: the types that columns may get.  Others are read as they come."""
UNREADABLE: Final[dict[str, set[str]]] = {
    "polars_adbc": {"interval"},
    "polars_connectorx": {"interval", "int8multirange"},
    "polars_sqlalchemy": {"jsonb"},
}
"""Types on which a reader fails."""
KNOWN_TO_IMPORTS_ONLY: Final = [".__inputs", ".__requires", ".templating.list[1].definition"]
"""What Grafana's own export writes, and its types do not have."""


def test_every_view_and_table_is_read_in_whole(
    readers_python: Path, database_url: str, tmp_path: Path
) -> None:
    relations = exportable()
    with export_sample(database_url), relay_before(database_url) as relay:
        types, rows = _in_warehouse(database_url, relations)
        told = {
            reader: _read(readers_python, tmp_path, reader, relay.url(database_url), relations)
            for reader in FITTING
        }

    unreadable = set()
    for reader, found in told.items():
        assert {name: each["rows"] for name, each in found.items()} == rows, reader
        unread = {(name, column) for name, each in found.items() for column in each["unread"]}
        assert {types[each] for each in unread} == UNREADABLE.get(reader, set()), (reader, found)
        unreadable |= unread
        odd = {
            (name, column, types[name, column], kind)
            for name, each in found.items()
            for column, kind in each["types"].items()
            if kind not in FITTING[reader].get(types[name, column], {kind})
        }
        assert odd == set(), reader
    assert {(name, column) for name, column in types if types[name, column] == "interval"} == {
        (name, column) for name, column in unreadable if f"{column}_seconds" in _names(types, name)
    }
    section = VIEWS_PAGE.read_text(encoding="utf-8").partition("\n## In analysts' tools\n")[2]
    for name, column in unreadable:
        assert f"`{name}`" in section.partition("\n## ")[0], name
        assert f"`{column}`" in section.partition("\n## ")[0], column


def test_grafana_knows_everything_in_its_dashboard(readers_python: Path, tmp_path: Path) -> None:
    def unknown(file: Path) -> list[str]:
        done = subprocess.run(
            [readers_python, PROGRAM.with_name("read_dashboard.py"), file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, list)
        return found

    assert unknown(DASHBOARD) == KNOWN_TO_IMPORTS_ONLY
    misspelt = tmp_path / "misspelt.json"
    text = DASHBOARD.read_text(encoding="utf-8")
    misspelt.write_text(text.replace('"drawStyle"', '"drawingStyle"').replace('"unit"', '"units"'))
    assert len(unknown(misspelt)) > len(KNOWN_TO_IMPORTS_ONLY) + 5


def _names(types: dict[tuple[str, str], str], relation: str) -> set[str]:
    return {column for name, column in types if name == relation}


def _in_warehouse(
    url: str, relations: list[str]
) -> tuple[dict[tuple[str, str], str], dict[str, int]]:
    """The type of each column in Postgres, and the rows of each relation."""
    with psycopg.connect(url) as connection:
        types = connection.execute(
            "select relname, attname, format_type(atttypid, atttypmod) from pg_attribute "
            "inner join pg_class on pg_class.oid = attrelid "
            "where relnamespace = 'kaltura'::regnamespace and relname = any(%s) "
            "and attnum > 0 and not attisdropped",
            [relations],
        ).fetchall()
        rows = {}
        for name in relations:
            (rows[name],) = connection.execute(
                sql.SQL("select count(*) from kaltura.{}").format(sql.Identifier(name))
            ).fetchone() or (0,)
    assert sum(rows.values()) > 1_000
    return {(name, column): kind for name, column, kind in types}, rows


def _read(
    python: Path, home: Path, reader: str, url: str, relations: list[str]
) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [python, PROGRAM, reader, url, *relations],
        env={"PATH": os.environ.get("PATH", ""), "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(told, dict)
    return told
