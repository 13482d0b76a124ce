"""The warehouse that the views are measured on: versions of sixty nights, written by SQL."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.postgres import processor_seconds
from etl.demo import with_variables
from etl.warehouse.schema.filling import (
    FILLED_BY,
    arrival_filling,
    count_filling,
    moment_fillings,
    stay_filling,
)
from etl.warehouse.schema.objects import fill_factor
from etl.warehouse.schema.tables import build_tables

DATA: Final = Path(__file__).with_name("views_data.sql")
VERSIONS: Final = ("upload_token", "upload_token_superseded")
LOG: Final = "upload_token_status_moment_log"
SIXTY_NIGHTS: Final = {"first_night": "1", "runs_per_night": "2"}
A_YEAR_OF_RUNS: Final = {"first_night": "-304", "runs_per_night": "288"}
"""The ledgers that it can have; the tokens and their versions are of the sixty nights in both."""
NOT_DURABLE: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "'16GB'",
}
"""Settings of the server while it is filled: what is lost in a crash is written once more."""
KEYS: Final = """
select conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid)
from pg_constraint
where conrelid = any (%s::regclass[]) and contype = 'p'
"""
INDEXES: Final = """
select indexrelid::regclass::text, pg_get_indexdef(indexrelid)
from pg_index
where indrelid = any (%s::regclass[]) and not indisprimary
"""


def write_versions(
    connection: psycopg.Connection[Any], tokens: int, *, a_year_of_runs: bool = False
) -> None:
    """Fill an empty warehouse; ``search_path`` must be its schema.

    With ``a_year_of_runs`` the ledger has a run every five minutes of the year that ends with the
    last night, else two runs per night.

    The tables are written in the order in which the program writes them, without their indexes.
    Filling leaves the row before beside each row, in the same block while that has room; then the
    tables are written once more, as full as the program leaves them.
    """
    ledger = A_YEAR_OF_RUNS if a_year_of_runs else SIXTY_NIGHTS
    statements = with_variables(DATA.read_text(encoding="utf-8"), {"tokens": str(tokens), **ledger})
    with _not_durable(connection), _without_indexes(connection):
        with _keys_later(connection):
            for table in VERSIONS:
                connection.execute(f"alter table {table} set (fillfactor = 45)".encode())
            _timed(connection, f"{tokens:,} tokens", statements)
        connection.execute(f"analyze {', '.join(VERSIONS)}, sync_run".encode())
        for name, statement in zip(FILLED_BY, moment_fillings(), strict=True):
            _timed(connection, name, statement)
            if name == "fill_status_moments":
                connection.execute(f"analyze {LOG}".encode())
        _timed(connection, "stays", stay_filling())
        _timed(connection, "counts", count_filling())
        _timed(connection, "arrivals", arrival_filling())
        for table in VERSIONS:
            percent = fill_factor(build_tables().metadata.tables[f"kaltura.{table}"]) or 100
            connection.execute(f"alter table {table} set (fillfactor = {percent})".encode())
            _timed(connection, f"{table} anew", f"vacuum full {table}")
    _timed(connection, "vacuum", "vacuum analyze")
    connection.execute("checkpoint")


@contextmanager
def _not_durable(connection: psycopg.Connection[Any]) -> Iterator[None]:
    for name, value in NOT_DURABLE.items():
        connection.execute(f"alter system set {name} = {value}".encode())
    connection.execute("select pg_reload_conf()")
    connection.execute("set work_mem = '256MB'")
    connection.execute("set maintenance_work_mem = '1GB'")
    try:
        yield
    finally:
        connection.execute("reset maintenance_work_mem")
        connection.execute("reset work_mem")
        for name in NOT_DURABLE:
            connection.execute(f"alter system reset {name}".encode())
        connection.execute("select pg_reload_conf()")


@contextmanager
def _keys_later(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Primary keys: filling needs them, writing in another order than theirs does not."""
    keys = connection.execute(KEYS, [list(VERSIONS)]).fetchall()
    for table, name, _ in keys:
        connection.execute(f"alter table {table} drop constraint {name}".encode())
    yield
    for table, name, definition in keys:
        _timed(connection, name, f"alter table {table} add constraint {name} {definition}")


@contextmanager
def _without_indexes(connection: psycopg.Connection[Any]) -> Iterator[None]:
    indexes = connection.execute(INDEXES, [[*VERSIONS, LOG]]).fetchall()
    for name, _ in indexes:
        connection.execute(f"drop index {name}".encode())
    yield
    for name, definition in indexes:
        _timed(connection, name, definition)


def _timed(connection: psycopg.Connection[Any], name: str, statement: str) -> None:
    pid = connection.info.backend_pid
    before, began = processor_seconds(pid), time.perf_counter()
    connection.execute(statement.encode())
    seconds, work = time.perf_counter() - began, processor_seconds(pid) - before
    print(f"writing: {name}, {seconds:.1f} s, {work:.1f} of it CPU", file=sys.stderr, flush=True)
