"""Statements that no single machine is needed for: the rules are on, and publishing needs none.

The rules themselves are tested in ``tests/unit/test_portable.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import event

from etl.warehouse.engine import copy_rows, driver_connection, transaction
from etl.warehouse.schema.database import Database, open_database
from tests.support.databases import copy_database, with_database
from tests.support.environment import PYTHONPATH
from tests.support.nights import MakeNights, make_token, page_of
from tests.support.portable import STABLE_FUNCTIONS, NotPortable

TABLES = ("upload_token", "upload_token_superseded", "upload_token_staging", "sync_run")
EXPRESSIONS = {"coalesce", "greatest", "least", "nullif"}
"""Of the grammar, and no functions of the catalog."""
Statement = tuple[str, Any]


def test_the_rules_are_on_for_every_way_to_send_a_statement(database_url: str) -> None:
    bad = "update kaltura.sync_run set heartbeat_at = clock_timestamp()"
    ways: list[Callable[[sa.Connection], object]] = [
        lambda connection: connection.execute(sa.text(bad)),
        lambda connection: connection.exec_driver_sql(bad),
        lambda connection: driver_connection(connection).execute(bad),
        lambda connection: driver_connection(connection).cursor().executemany(bad, [()]),
        lambda connection: list(driver_connection(connection).cursor().stream(bad)),
        lambda connection: connection.execute(
            sa.text("select ctid from kaltura.sync_run"), execution_options={"yield_per": 5}
        ),
        lambda connection: copy_rows(
            connection, sql.SQL("kaltura.sync_run"), [("ctid", "tid")], []
        ),
    ]
    with open_database(database_url, "kaltura") as database:
        for way in ways:
            with pytest.raises(NotPortable), transaction(database.engine) as connection:
                way(connection)


@pytest.mark.postgres15
def test_what_an_update_may_call_is_not_volatile(database_url: str) -> None:
    with closing(psycopg.connect(database_url)) as connection:
        found = connection.execute(
            "select distinct proname::text, provolatile = 'v' from pg_proc "
            "where pronamespace = 'pg_catalog'::regnamespace and proname = any(%s)",
            [sorted(STABLE_FUNCTIONS)],
        ).fetchall()
    assert {name for name, is_volatile in found if is_volatile} == set()
    assert STABLE_FUNCTIONS - {name for name, _ in found} <= EXPRESSIONS


def test_the_rules_are_on_in_processes_too(database_url: str) -> None:
    """In those that tests start with the path that ``tests.support.environment`` has."""
    done = subprocess.run(
        [sys.executable, "-c", SENDS, database_url],
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "sent\n", done.stderr
    assert "NotPortable: a setting, a lock" in done.stderr


SENDS = """
import sys
from etl.warehouse.engine import connect, transaction
with transaction(connect(sys.argv[1])) as connection:
    connection.exec_driver_sql("set local statement_timeout = '5s'")
    print("sent", flush=True)
    connection.exec_driver_sql("set statement_timeout = '5s'")
"""


def test_publishing_is_the_same_with_each_of_its_statements_alone(
    make_nights: MakeNights, postgres_url: str
) -> None:
    """In the order in which they are sent, each in a transaction and with a snapshot of its own."""
    nights = make_nights()
    nights.night([make_token(name, 1_700_000_000 + number) for number, name in enumerate("abcdef")])
    nights.time += timedelta(days=1)
    run = nights.open()
    tokens = [
        make_token("a"),
        make_token("b", 1_700_000_001, status=1),
        make_token("c", 1_700_000_002, user_id=None, file_name="other"),
        make_token("g", 1_700_000_009),
    ]
    nights.stage(run, page_of(tokens, observed_at=nights.time, from_start=True, to_end=True))
    nights.confirm(run, tokens)
    original = urlsplit(nights.url).path.lstrip("/")
    copy = f"{original}_copy"
    nights.database.engine.dispose()
    with closing(psycopg.connect(postgres_url, autocommit=True)) as server:
        copy_database(server, copy, original)
        try:
            with sent(nights.database) as statements:
                nights.publish(run)
            with closing(
                psycopg.connect(with_database(postgres_url, copy), autocommit=True)
            ) as alone:
                for statement, values in statements:
                    alone.execute(statement.encode(), values)
                assert contents(alone) == contents_at(nights.url)
        finally:
            server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(copy)))
    assert (nights.counts.inserted, nights.counts.changed, nights.counts.absent) == (1, 2, 3)


@contextmanager
def sent(database: Database) -> Iterator[list[Statement]]:
    """The statements of a transaction with their values, without those that set something."""
    found: list[Statement] = []

    def note(*arguments: Any) -> None:
        if "set_config(" not in arguments[2]:
            found.append((arguments[2], arguments[3]))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def contents_at(url: str) -> dict[str, list[str]]:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        return contents(connection)


def contents(connection: psycopg.Connection[tuple[Any, ...]]) -> dict[str, list[str]]:
    """Every row as text, without the times at which the ledger's row was written."""
    connection.execute("set timezone = 'UTC'")
    return {
        name: [
            row[0]
            for row in connection.execute(
                sql.SQL(
                    "select cast(to_jsonb(row) - 'heartbeat_at' - 'finished_at' as text) "
                    "from kaltura.{} as row order by 1"
                ).format(sql.Identifier(name))
            )
        ]
        for name in TABLES
    }
