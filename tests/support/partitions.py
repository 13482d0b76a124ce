"""The same history of several accounts in one warehouse, whose tables may be partitioned.

Partitions are heaps of their own, as are the shards of a distributed table: what is unique in one
of them, such as ``ctid``, is not unique in the table.  So the same history of several accounts, one
in each partition, is the hardest case: their rows lie at the same places.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from etl.errors import CredentialsRefused
from etl.resources import sql_directory
from etl.simulator import SimulatorServer
from etl.tokens.digest import DIGEST_COLUMNS
from tests.support.erasure import ANNA, assert_verified, insert
from tests.support.job import Job
from tests.support.restamp import restamp_run

PARTNERS: Final = (102, 103, 104, 105)
"""Each in another one of the partitions; the fixture asserts it."""
PARTITIONS: Final = 4
PARTITIONED: Final = {
    "upload_token": "partner_id",
    "upload_token_superseded": "partner_id",
    "upload_token_status_moment_log": "partner_id",
    "upload_token_status_count_log": "partner_id",
    "upload_bytes_arrival_log": "partner_id",
    "upload_token_staging": "partner_id",
    "sync_page": "run_id",
    "rejected_row": "run_id",
}
TOKENS: Final = 40
SEED: Final = 30
"""Of an account with no more tokens in any second than a page holds."""
PAGE_CAP: Final = 10
FAILS_AT: Final = 4
"""The page of the last night's walk that the service refuses, after those that show a change."""
HELD_BY_ANNA: Final = ("a1", "a2", "a3", "a4", "a6", "a7")
SECRETS: Final = [
    *(ANNA, "anna-first", "anna-renamed", "anna-passed-on", "anna-orphan", "anna-staged"),
    *("anna-extra", "anna-extra-later", "anna-rejected", "anna-of-", "anna-later"),
]
RECORDS: Final = ("erasure", "pruning")
"""What erasing and pruning themselves leave behind of the account."""

Rows = dict[tuple[str, int | None], list[str]]


@dataclass(frozen=True)
class World:
    """Accounts with the same tokens, users and file names in one warehouse."""

    jobs: list[Job]
    servers: list[SimulatorServer]

    @property
    def url(self) -> str:
        return self.jobs[0].database_url


def partition_tables(url: str) -> None:
    """Partition the tables of a migrated database that holds no rows yet.

    With every column, constraint and index under its name: ``verify`` asks for them.  The views are
    replaced in place, so what depends on them stays; that the old tables can be dropped shows that
    nothing reads them any more.
    """
    with psycopg.connect(url) as connection:
        connection.execute("create schema plain")
        for table, by in PARTITIONED.items():
            definitions = definitions_of(connection, table)
            for statement in (
                f"alter table kaltura.{table} set schema plain",
                f"create table kaltura.{table} (like plain.{table} including all "
                f"excluding indexes) partition by hash ({by})",
                *definitions,
            ):
                connection.execute(statement.encode())
            # Postgres 18 refuses an unlogged parent; it has no rows that could be logged.
            unlogged = "unlogged" if table == "upload_token_staging" else ""
            for number in range(PARTITIONS):
                connection.execute(
                    f"create {unlogged} table kaltura.{table}_p{number} "
                    f"partition of kaltura.{table} "
                    f"for values with (modulus {PARTITIONS}, remainder {number})".encode()
                )
        connection.execute("set local search_path = kaltura")
        for path in sorted((sql_directory() / "views").glob("*.sql")):
            connection.execute(path.read_bytes())
        for table in PARTITIONED:
            connection.execute(f"drop table plain.{table}".encode())
        connection.execute("drop schema plain")


def definitions_of(connection: psycopg.Connection[Any], table: str) -> list[str]:
    """The statements that make a table's keys and indexes; LIKE would give them other names."""
    connection.execute("set local search_path = ''")
    found = connection.execute(
        """
        select format(
            'alter table kaltura.%%I add constraint %%I %%s',
            %(table)s::text, conname, pg_get_constraintdef(oid)
        )
        from pg_constraint
        where conrelid = format('kaltura.%%I', %(table)s::text)::regclass
        and contype in ('p', 'u', 'f')
        union all
        select pg_get_indexdef(indexrelid)
        from pg_index
        where indrelid = format('kaltura.%%I', %(table)s::text)::regclass
        and not exists (select 1 from pg_constraint where conindid = indexrelid)
        """,
        {"table": table},
    )
    return [statement for (statement,) in found]


def live_through_some_nights(world: World) -> None:
    """Three nights ten days apart, then one whose walk fails half-way, in each account in turn."""
    nights = (first_night, second_night, third_night)
    for number, changes in enumerate(nights):
        begin = datetime.now(UTC) - timedelta(days=10 * (len(nights) - number))
        for job, server in zip(world.jobs, world.servers, strict=True):
            changes(server)
            report = job.run()
            assert report.rejected == 2
            with psycopg.connect(world.url, autocommit=True) as connection:
                restamp_run(connection, report.run_id, begin)
    for job, server in zip(world.jobs, world.servers, strict=True):
        last_night(server)
        server.faults.schedule("service-forbidden", where="list", at=(FAILS_AT,))
        with pytest.raises(CredentialsRefused):
            job.run()
        server.faults.clear()
    with psycopg.connect(world.url, autocommit=True) as connection:
        # The statistics hold values word for word, of the whole table and of each partition.
        connection.execute("analyze")


def first_night(server: SimulatorServer) -> None:
    account = server.account
    insert(server, "a1", fileName="anna-first", note={"x": ["anna-extra", 1.50]})
    insert(server, "a2", fileName=f"anna-of-{account.partner_id}")
    insert(server, "a3", fileName="anna-passed-on")
    insert(server, "a4", fileName="anna-orphan", createdAt=account.line[3].created_at)
    insert(server, "a6", fileName="", partnerId="anna-rejected")
    insert(server, "o1", userId="otto", fileName="otto.mp4", partnerId="ottos-rejected")
    insert(server, "o2", userId="otto", fileName="otto-first", note="ottos-note")


def second_night(server: SimulatorServer) -> None:
    account = server.account
    account.change("a1", {"fileName": "anna-renamed", "note": {"x": ["anna-extra-later", 1.5]}})
    account.delete("a2")
    account.change("a3", {"userId": "otto"})
    account.change("o2", {"note": f"ottos-of-{account.partner_id}"})


def third_night(server: SimulatorServer) -> None:
    account = server.account
    account.change("a1", {"status": 3})
    account.undelete("a2")
    account.change("a4", {"userId": ...}, touch=False)
    account.change("o2", {"fileName": "otto-second"})


def last_night(server: SimulatorServer) -> None:
    account = server.account
    begin = account.line[5].created_at
    insert(server, "a7", fileName="anna-staged", createdAt=begin, note={"n": 1.0})
    account.change("a4", {"fileName": "anna-orphan, anna-staged"})


def rows_by_account(url: str, without: tuple[str, ...] = ()) -> Rows:
    """Every row of every table byte for byte, by table and account (None: of no account).

    As often as it is there.  ``without`` leaves columns out.
    """
    found: Rows = {}
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        tables = connection.execute(
            "select relname, array_agg(attname::text) "
            "from pg_class join pg_attribute on attrelid = pg_class.oid "
            "where relnamespace = 'kaltura'::regnamespace and relkind in ('r', 'p') "
            "and not relispartition and attnum > 0 group by relname"
        ).fetchall()
        for table, columns in tables:
            owner = "null::integer"
            if "partner_id" in columns:
                owner = "t.partner_id"
            elif "run_id" in columns:
                owner = "(select partner_id from kaltura.sync_run where run_id = t.run_id)"
            row = sql.SQL("(to_jsonb(t) - {}::text[])::text").format(list(without))
            statement = sql.SQL("select {}, {} from {} as t order by 2").format(
                sql.SQL(owner),
                row if without else sql.SQL("t::text"),
                sql.Identifier("kaltura", table),
            )
            for partner_id, text in connection.execute(statement):
                found.setdefault((table, partner_id), []).append(text)
    return found


def of_others(rows: Rows, job: Job) -> Rows:
    return {key: each for key, each in rows.items() if key[1] != job.partner_id}


def of_account(rows: Rows, job: Job) -> Rows:
    """The account's own, but for what says that it was erased or pruned."""
    return {
        (table, partner_id): each
        for (table, partner_id), each in rows.items()
        if partner_id == job.partner_id and table not in RECORDS
    }


def impersonal(job: Job) -> Rows:
    """The account's rows without what an erasure replaces or empties."""
    names = ("user_id", "file_name", "extra", "payload", *DIGEST_COLUMNS)
    rows = rows_by_account(job.database_url, names)
    return of_account(rows, job)


def assert_one_account_a_partition(world: World) -> None:
    """Else a row could not be taken for one of another account: they would share a heap."""
    for table, by in PARTITIONED.items():
        if by == "partner_id":
            places = world.jobs[0].query(
                "select distinct partner_id, tableoid::regclass::text as place "  # noqa: S608
                f"from kaltura.{table}"
            )
            assert len({row["place"] for row in places}) == len(places) == len(PARTNERS)


def assert_every_account_has_rows_everywhere(world: World) -> None:
    rows = rows_by_account(world.url)
    for job in world.jobs:
        assert {table for table, partner_id in rows if partner_id == job.partner_id} == {
            *PARTITIONED,
            "sync_run",
        }
        staged = job.query(
            "select token_id from kaltura.upload_token_staging "
            "where partner_id = %s and kind = 'present'",
            job.partner_id,
        )
        assert sorted(row["token_id"] for row in staged) == ["a4", "a7"]
        assert job.last_run()["status"] == "failed"


def night_goes_on(world: World, number: int) -> None:
    """The account's failed walk is resumed; nights go on, and no other account's rows change."""
    job, server = world.jobs[number], world.servers[number]
    kept = of_others(rows_by_account(world.url), job)
    resumed = job.run()
    assert resumed.resumed_from is not None
    quiet = job.run()
    assert (quiet.inserted, quiet.changed, quiet.absent, quiet.relisted) == (0, 0, 0, 0)
    server.account.change("a1", {"fileName": f"anna-later {datetime.now(UTC)}"})
    server.account.change("o2", {"fileName": f"otto-later {datetime.now(UTC)}"})
    assert job.run().changed == 2
    assert of_others(rows_by_account(world.url), job) == kept
    assert_verified(job)
