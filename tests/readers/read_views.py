"""Reads relations in whole, as analysts' tools do.  Only the environment of these tests runs this:

    read_views.py READER DATABASE_URL RELATION...

Prints one JSON object: for each relation its rows, the type that each column got, and the columns
that the reader could not read, without which it was read then.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

Read = Callable[[str, Sequence[str]], tuple[int, dict[str, str]]]
"""Of a relation and columns of it: number of rows, types by column."""
SCHEMA = "kaltura"


def polars_adbc(url: str) -> Read:
    return _polars_from_address(url, "adbc")


def polars_connectorx(url: str) -> Read:
    # It knows no settings of libpq.
    return _polars_from_address(url.partition("?")[0], "connectorx")


def _polars_from_address(url: str, engine: Any) -> Read:
    import polars  # type: ignore[import-not-found]  # its own environment

    return lambda relation, columns: _of_polars(
        polars.read_database_uri(_select(relation, columns), url, engine=engine)
    )


def polars_sqlalchemy(url: str) -> Read:
    import polars

    engine = sa.create_engine(url)
    return lambda relation, columns: _of_polars(
        # All rows: the first hundred may have nothing but NULL.
        polars.read_database(_select(relation, columns), engine, infer_schema_length=None)
    )


def _of_polars(frame: Any) -> tuple[int, dict[str, str]]:
    return frame.height, dict(zip(frame.columns, map(str, frame.dtypes), strict=True))


def pandas(url: str) -> Read:
    import pandas  # type: ignore[import-untyped]

    engine = sa.create_engine(url)

    def read(relation: str, columns: Sequence[str]) -> tuple[int, dict[str, str]]:
        # Integers with NULLs among them are floating-point numbers until then.
        frame = pandas.read_sql(_select(relation, columns), engine).convert_dtypes()
        return len(frame), {name: str(kind) for name, kind in frame.dtypes.items()}

    return read


def duckdb_attached(url: str) -> Read:
    import duckdb  # type: ignore[import-not-found]
    from duckdb_extensions import import_extension  # type: ignore[import-not-found]

    import_extension("postgres_scanner")
    connection = duckdb.connect()
    connection.execute("load postgres_scanner")
    connection.execute(f"attach '{url}' as warehouse (type postgres, read_only)")
    connection.execute("use warehouse")
    return lambda relation, columns: _of_duckdb(connection.sql(_select(relation, columns)))


def duckdb_adbc(url: str) -> Read:
    import duckdb
    from adbc_driver_postgresql import dbapi  # type: ignore[import-not-found]

    warehouse, connection = dbapi.connect(url), duckdb.connect()

    def read(relation: str, columns: Sequence[str]) -> tuple[int, dict[str, str]]:
        with warehouse.cursor() as cursor:
            cursor.execute(_select(relation, columns))
            rows = cursor.fetch_arrow_table()
        return _of_duckdb(connection.from_arrow(rows))

    return read


def _of_duckdb(relation: Any) -> tuple[int, dict[str, str]]:
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    return relation.to_arrow_table().num_rows, types  # fetchall() wants pytz for times


def sqlalchemy(url: str) -> Read:
    engine = sa.create_engine(url)

    def read(relation: str, columns: Sequence[str]) -> tuple[int, dict[str, str]]:
        with warnings.catch_warnings(), engine.connect() as connection:
            warnings.simplefilter("error")  # a type that it does not know is a warning
            table = sa.Table(relation, sa.MetaData(), autoload_with=engine, schema=SCHEMA)
            rows = connection.execute(sa.select(*(table.c[name] for name in columns))).all()
        return len(rows), {name: str(table.c[name].type) for name in columns}

    return read


READERS: dict[str, Callable[[str], Read]] = {
    reader.__name__: reader
    for reader in (
        *(polars_adbc, polars_connectorx, polars_sqlalchemy, pandas),
        *(duckdb_attached, duckdb_adbc, sqlalchemy),
    )
}


def _select(relation: str, columns: Sequence[str]) -> str:
    return f"select {_listed(columns)} from {SCHEMA}.{relation}"  # noqa: S608  # our own names


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _columns(url: str, relations: Sequence[str]) -> dict[str, list[str]]:
    with sa.create_engine(url).connect() as connection:
        found = connection.execute(
            sa.text(
                "select table_name, column_name from information_schema.columns "
                "where table_schema = :schema order by ordinal_position"
            ),
            {"schema": SCHEMA},
        ).all()
    return {each: [column for name, column in found if name == each] for each in relations}


def _error(read: Read, relation: str, columns: Sequence[str]) -> str | None:
    try:
        read(relation, columns)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        return f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    return None


def main(reader: str, url: str, *relations: str) -> None:
    read, told = READERS[reader](url), {}
    for relation, columns in _columns(url, relations).items():
        unread: dict[str, str] = {}
        if _error(read, relation, columns):
            errors = {name: _error(read, relation, [name]) for name in columns}
            unread = {name: error for name, error in errors.items() if error}
        rows, types = read(relation, [name for name in columns if name not in unread])
        told[relation] = {"rows": rows, "types": types, "unread": unread}
    sys.stdout.write(f"\n{json.dumps(told)}\n")
    sys.stdout.flush()
    # Rust that has panicked may not come to an end.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
