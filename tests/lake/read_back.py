"""Reads exports with DuckDB, pyarrow and deltalake.  Only the environment of ``./dev test lake``
runs this:

    read_back.py compare csv|parquet|delta DATABASE_URL FOLDER   rows that only one side has
    read_back.py mentions FOLDER TEXT                            files in which a text is
    read_back.py versions FOLDER                                 versions of each table

Each prints one JSON object.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb  # type: ignore[import-not-found]  # its own environment
import psycopg
from deltalake import DeltaTable
from psycopg import sql
from psycopg.rows import dict_row
from pyarrow import parquet

AS_FILES_HAVE_IT = {
    "interval": "cast(extract(epoch from {}) as double precision)",
    **dict.fromkeys(("jsonb", "int8multirange", "int8range", "tstzrange"), "cast({} as text)"),
    "bytea": "encode({}, 'hex')",
    "numeric": "round({}, 9)",
}
GROWING = ("age_seconds", "complete_age_seconds")
"""They are reckoned to now."""


def compare(file_format: str, url: str, folder: Path) -> dict[str, Any]:
    if file_format == "delta":
        views: dict[str, list[dict[str, str]]] = {"upload_token_history": [], "sync_run": []}
    else:
        told = json.loads((folder / "manifest.json").read_text())["views"]
        views = {each["view"]: each["columns"] for each in told}
    found = {}
    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute("set search_path = kaltura; set timezone = 'UTC'")
        for view, columns in views.items():
            theirs = Counter(map(canonical, read(file_format, folder, view, columns)))
            ours = Counter(map(canonical, stored(connection, view, file_format)))
            more, less = theirs - ours, ours - theirs
            found[view] = {
                "rows": sum(theirs.values()),
                "only_in_files": sum(more.values()),
                "only_in_warehouse": sum(less.values()),
                "such_as": [next(iter(each), None) for each in (more, less)],
            }
    return found


def read(
    file_format: str, folder: Path, view: str, columns: list[dict[str, str]]
) -> list[dict[str, Any]]:
    connection = duckdb.connect()
    if file_format == "delta":
        connection.register("rows", DeltaTable(folder / view).to_pyarrow_dataset())
        relation = connection.sql("select * from rows")
    elif file_format == "parquet":
        relation = connection.read_parquet(f"{folder}/{view}/**/*.parquet", hive_partitioning=True)
    else:
        relation = connection.read_csv(
            f"{folder}/{view}/**/*.csv",
            header=True,
            delimiter=",",
            quotechar='"',
            escapechar='"',
            all_varchar=True,
            auto_detect=False,
            allow_quoted_nulls=False,
            hive_partitioning=False,
            columns={column["name"]: "VARCHAR" for column in columns},
        )
    rows: list[dict[str, Any]] = relation.to_arrow_table().to_pylist()
    if file_format != "csv":
        return rows
    kinds = {column["name"]: column["kind"] for column in columns}
    return [
        {
            name: None
            if cell is None
            else cell.replace(r"\u003b", ";")  # as JSON says a semicolon there
            if name == "extra"
            else FROM_TEXT[kinds[name]](cell)
            for name, cell in row.items()
        }
        for row in rows
    ]


MADE_SAFE = (
    r"^'(?='*[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])"
    r"|(?<=[;\t\r\n])'(?=['\"]*[=+\-@\uFF1D\uFF0B\uFF0D\uFF20])"
)
"""As docs/howto/export.md tells how to undo it."""
FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": {"true": True, "false": False}.__getitem__,
    "decimal": Decimal,
    "time": datetime.fromisoformat,
    "date": date.fromisoformat,
    "list": json.loads,
    "int_list": json.loads,
    "float_list": lambda cell: [float(each) for each in json.loads(cell)],
    "text": lambda cell: re.sub(MADE_SAFE, "", cell),
}


def stored(
    connection: psycopg.Connection[dict[str, Any]], view: str, file_format: str
) -> Iterable[dict[str, Any]]:
    columns = connection.execute(
        "select column_name as name, udt_name as type from information_schema.columns "
        "where table_schema = 'kaltura' and table_name = %s order by ordinal_position",
        [view],
    ).fetchall()
    names = {column["name"] for column in columns}
    selected = []
    for column in columns:
        name = column["name"]
        if column["type"] == "interval":
            if f"{name}_seconds" in names:
                continue
            name = f"{name}_seconds"
        text = sql.SQL(AS_FILES_HAVE_IT.get(column["type"], "{}"))
        value = text.format(sql.Identifier(column["name"]))
        selected.append(sql.SQL("{} as {}").format(value, sql.Identifier(name)))
    only = "where published_at is not null" if file_format == "delta" and view == "sync_run" else ""
    return connection.execute(
        sql.SQL("select {} from {} {}").format(
            sql.SQL(", ").join(selected),
            sql.Identifier(view),
            sql.SQL(only),
        )
    ).fetchall()


def canonical(row: dict[str, Any]) -> str:
    return json.dumps(
        {name: plain(value) for name, value in sorted(row.items()) if name not in GROWING}
    )


def plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return value


def mentions(folder: Path, text: str) -> dict[str, Any]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = []
    for path in files:
        if path.suffix == ".parquet" and "_delta_log" not in path.parts:
            told = str(parquet.read_table(path, partitioning=None).to_pylist())
        else:
            told = path.read_bytes().decode("utf-8", "replace")
        if text in told:
            found.append(str(path.relative_to(folder)))
    return {"files": len(files), "found": found}


def versions(folder: Path) -> dict[str, Any]:
    told = {}
    for path in sorted(folder.iterdir()):
        table = DeltaTable(path)
        rows: dict[int, int | None] = {}
        for version in range(table.version() + 1):
            try:
                table.load_as_version(version)
                rows[version] = table.to_pyarrow_dataset().count_rows()
            except FileNotFoundError:
                rows[version] = None
        table = DeltaTable(path)
        told[path.name] = {
            "rows": list(rows.values()),
            "run_ids": [commit.get("kaltura_etl.run_id") for commit in table.history()][::-1],
            "protocol": [table.protocol().min_reader_version, table.protocol().min_writer_version],
        }
    return told


def main(arguments: list[str]) -> None:
    match arguments:
        case ["compare", file_format, url, folder]:
            result = compare(file_format, url, Path(folder))
        case ["mentions", folder, text]:
            result = mentions(Path(folder), text)
        case ["versions", folder]:
            result = versions(Path(folder))
        case _:
            sys.exit(__doc__)
    sys.stdout.write(f"{json.dumps(result)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
