"""Erasing and pruning one account changes no row of another, also where the tables are partitioned.

Partitions are heaps of their own, as are the shards of a distributed table: what is unique in one
of them, such as ``ctid``, is not unique in the table.  So the same history of several accounts, one
in each partition, is the hardest case: their rows lie at the same places.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from etl.errors import CredentialsRefused, DataRefused
from etl.resources import sql_directory
from etl.simulator import SimulatorServer, generate_account
from etl.tokens.pseudonyms import Pseudonyms
from etl.warehouse.privacy.prune import Pruned, prune
from etl.warehouse.schema.database import open_database
from tests.support.erasure import ANNA, KEY, assert_verified, erased, insert
from tests.support.job import Job
from tests.support.restamp import restamp_run
from tests.support.roles import own_database
from tests.support.searching import fingerprint, search

PARTNERS: Final = (102, 103, 104, 105)
"""Each in another one of the partitions; the fixture asserts it."""
PARTITIONS: Final = 4
PARTITIONED: Final = {
    "upload_token": "partner_id",
    "upload_token_superseded": "partner_id",
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


@pytest.fixture(scope="module", params=["ordinary", "partitioned"])
def loaded(
    request: pytest.FixtureRequest, postgres_url: str, template_database: str
) -> Iterator[World]:
    """The warehouse that the tests of this module copy, and the services, which they share.

    A test may change what a service lists, so none may rely on what it lists later.
    """
    with ExitStack() as stack:
        url = stack.enter_context(own_database(postgres_url, template_database))
        if request.param == "partitioned":
            partition_tables(url)
        servers = []
        for partner_id in PARTNERS:
            account = generate_account(TOKENS, seed=SEED, partner_id=partner_id)
            servers.append(stack.enter_context(SimulatorServer(account, page_cap=PAGE_CAP)))
        jobs = [
            Job.of(
                server,
                url,
                ETL_ABSENCE_GRACE="0s",
                ETL_CONCURRENCY="1",
                ETL_ERASURE_KEY=KEY,
                ETL_KEEP_PAGES_DAYS="3650",
                ETL_RETRY_ATTEMPTS="1",
            )
            for server in servers
        ]
        world = World(jobs, servers)
        live_through_some_nights(world)
        if request.param == "partitioned":
            assert_one_account_a_partition(world)
        assert_every_account_has_rows_everywhere(world)
        yield world


@pytest.fixture
def world(loaded: World, postgres_url: str) -> Iterator[World]:
    """The accounts in a database of this test's own."""
    name = urlsplit(loaded.url).path.removeprefix("/")
    with own_database(postgres_url, name) as url:
        yield World([replace(job, database_url=url) for job in loaded.jobs], loaded.servers)


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
    insert(server, "a6", fileName="", updatedAt="anna-rejected")
    insert(server, "o1", userId="otto", fileName="otto.mp4", updatedAt="ottos-rejected")
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
    """The account's rows without what an erasure replaces."""
    rows = rows_by_account(job.database_url, ("user_id", "file_name", "extra", "payload"))
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
    """The account's failed walk is resumed; nights go on, and nobody else's rows change."""
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


@pytest.mark.parametrize("loaded", ["ordinary"], indirect=True)
def test_erasing_a_user_changes_no_other_account(world: World) -> None:
    """The same user is erased in one account after the other, and each time only there."""
    assert_that_erasing_a_user_changes_no_other_account(world)


@pytest.mark.postgres15
@pytest.mark.parametrize("loaded", ["partitioned"], indirect=True)
def test_erasing_a_user_changes_no_other_account_in_partitions(world: World) -> None:
    """On each Postgres: they differ in what they can do with partitions."""
    assert_that_erasing_a_user_changes_no_other_account(world)


def assert_that_erasing_a_user_changes_no_other_account(world: World) -> None:
    assert {needle for needle, _, _ in search(world.url, SECRETS)} == {*SECRETS} - {"anna-later"}
    counts = []
    for number, job in enumerate(world.jobs):
        kept, before = of_others(rows_by_account(world.url), job), impersonal(job)

        told = erased(job, users=(ANNA,), apply=False)
        (report,) = erased(job, users=(ANNA,))

        assert told == [report]
        assert of_others(rows_by_account(world.url), job) == kept
        assert impersonal(job) == before
        counts.append({table: replaced.rows for table, replaced in report.tables.items()})
        assert report.tokens == len(HELD_BY_ANNA)
        assert search(world.url, [f"anna-of-{job.partner_id}"]) == set()
        if number == 0:
            # While the others still have their Anna.
            night_goes_on(world, number)
    # Of a3 both versions, its later owner kept; of a6 what was rejected in each of three runs.
    assert counts == [
        {
            "upload_token": 4,
            "upload_token_superseded": 5,
            "upload_token_staging": 2,
            "rejected_row": 3,
        }
    ] * len(PARTNERS)
    assert search(world.url, SECRETS) == set()
    assert world.jobs[1].run().resumed_from is not None
    assert search(world.url, SECRETS) == set()
    assert_verified(world.jobs[1])


def test_erasing_a_token_changes_no_other_account(world: World) -> None:
    """Its owner is erased with it, on this token of this account only."""
    job = world.jobs[1]
    rows = rows_by_account(world.url)
    kept, before = of_others(rows, job), impersonal(job)
    secret = f"ottos-of-{job.partner_id}"
    assert search(world.url, [secret]) != set()

    (report,) = erased(job, tokens=("o2",))

    assert {table: replaced.rows for table, replaced in report.tables.items()} == {
        "upload_token": 1,
        "upload_token_superseded": 2,
        "upload_token_staging": 0,
        "rejected_row": 0,
    }
    now = rows_by_account(world.url)
    assert of_others(now, job) == kept
    assert impersonal(job) == before
    # Of the account itself three rows differ, and no more.
    lost = [row for key, each in of_account(rows, job).items() for row in {*each} - {*now[key]}]
    assert len(lost) == 3
    assert all(",o2," in row for row in lost)
    assert search(world.url, [secret]) == set()
    pseudonym = Pseudonyms(KEY, job.partner_id).of_user("otto")
    assert job.query(
        "select distinct user_id from kaltura.upload_token where token_id = 'o2' "
        "and partner_id = %s",
        job.partner_id,
    ) == [{"user_id": pseudonym}]
    assert_verified(job)
    night_goes_on(world, 1)


def test_pruning_changes_no_other_account(world: World) -> None:
    """What is younger stays also in the account itself."""
    job = world.jobs[2]
    before = rows_by_account(world.url)
    kept = of_others(before, job)

    days = {"versions": 15, "pages": 15, "rejected": 15}
    told = pruned(job, days, apply=False)
    done = pruned(job, days)

    counts = {each.kind: each.rows for each in done}
    assert {each.kind: each.rows for each in told} == counts
    now = rows_by_account(world.url)
    assert of_others(now, job) == kept
    for kind, table in (
        ("versions", "upload_token_superseded"),
        ("pages", "sync_page"),
        ("rejected", "rejected_row"),
    ):
        old, left = before[table, job.partner_id], now[table, job.partner_id]
        assert counts[kind] == len(old) - len(left) > 0
        assert {*left} <= {*old}
    assert counts["rejected"] == 4
    assert_verified(job)
    night_goes_on(world, 2)


def pruned(job: Job, days: dict[str, int], *, apply: bool = True) -> list[Pruned]:
    with open_database(job.database_url, "kaltura") as database:
        return prune(database, days=days, partner_id=job.partner_id, apply=apply)


def test_rows_of_staging_that_hold_the_same_are_all_replaced(world: World) -> None:
    """Staging has no key: the same token may be there twice, and 1.0 is not written as 1.00."""
    job = world.jobs[1]
    of_a7 = (
        f"from kaltura.upload_token_staging where token_id = 'a7' and partner_id = {job.partner_id}"
    )
    columns = job.query(
        "select string_agg(attname, ', ' order by attnum) as names from pg_attribute "
        "where attrelid = 'kaltura.upload_token_staging'::regclass and attnum > 0 "
        "and attname <> 'extra'"
    )[0]["names"]
    texts = ('{"note": {"n": 1.0}}', '{"note": {"n": 1.00}}', '{"note": {"n": 1}}')
    for text in (*texts, *texts):
        job.query(
            f"insert into kaltura.upload_token_staging ({columns}, extra) "
            f"select {columns}, %s::jsonb {of_a7} limit 1",
            text,
        )
    # What is counted as staged must be there, or nobody resumes the walk.
    job.query(
        "update kaltura.sync_run set staged = staged + %s where run_id = %s",
        2 * len(texts),
        job.last_run()["run_id"],
    )
    spellings = [row["extra"] for row in job.query(f"select extra::text {of_a7}")]
    assert {spelling: spellings.count(spelling) for spelling in texts} == dict(
        zip(texts, (3, 2, 2), strict=True)
    )
    kept, before = of_others(rows_by_account(world.url), job), impersonal(job)

    told = erased(job, users=(ANNA,), apply=False)
    (report,) = erased(job, users=(ANNA,))

    assert told == [report]
    assert report.tables["upload_token_staging"].rows == len(spellings) + 1
    assert of_others(rows_by_account(world.url), job) == kept
    assert impersonal(job) == before
    # Equal values have one pseudonym, however they are written.
    rows = job.query(f"select user_id, file_name, extra::text {of_a7}")
    assert len(rows) == len(spellings)
    assert len({tuple(row.values()) for row in rows}) == 1
    assert all("erased" in value for value in rows[0].values())
    assert_verified(job)
    assert job.run().resumed_from is not None
    assert_verified(job)


SUPPRESSING: Final = """
    create function public.keep() returns trigger language plpgsql as 'begin return null; end';
    create trigger keep before {event} on kaltura.{table} for each row
    when ({condition}) execute function public.keep()
"""
NOT_UPDATED: Final = {
    "upload_token": "old.token_id = 'a1'",
    "upload_token_superseded": "old.token_id = 'a1' and old.version = 2",
    "upload_token_staging": "old.token_id = 'a7'",
    "rejected_row": "old.token_id = 'a6'",
}


def test_an_erasure_that_a_trigger_suppresses_is_refused(world: World) -> None:
    """Else the user would be listed as erased, and still be there."""
    before = fingerprint(world.url)
    with psycopg.connect(world.url, autocommit=True) as connection:
        for table, condition in NOT_UPDATED.items():
            suppressing = SUPPRESSING.format(event="update", table=table, condition=condition)
            connection.execute(suppressing.encode())

            with pytest.raises(DataRefused) as caught:
                # Otto is erased first, and that is undone too.
                erased(world.jobs[1], users=("otto", ANNA))

            assert caught.value.fields["reason"] == "row_count_mismatch"
            assert caught.value.fields["table"] == table
            assert fingerprint(world.url) == before
            connection.execute("drop function public.keep cascade")
    erased(world.jobs[1], users=("otto", ANNA))
    assert fingerprint(world.url) != before


NOT_DELETED: Final = {
    "versions": ("upload_token_superseded", "old.token_id = 'a1'"),
    "pages": ("sync_page", "old.seq = 1"),
    "rejected": ("rejected_row", "old.token_id = 'a6'"),
}


def test_a_pruning_that_a_trigger_suppresses_is_refused(world: World) -> None:
    """Else the record would say that rows are gone which are still there."""
    before = fingerprint(world.url)
    with psycopg.connect(world.url, autocommit=True) as connection:
        for kind, (table, condition) in NOT_DELETED.items():
            suppressing = SUPPRESSING.format(event="delete", table=table, condition=condition)
            connection.execute(suppressing.encode())

            with pytest.raises(DataRefused) as caught:
                pruned(world.jobs[1], {kind: 0})

            assert caught.value.fields["reason"] == "row_count_mismatch"
            assert caught.value.fields["table"] == table
            assert fingerprint(world.url) == before
            connection.execute("drop function public.keep cascade")
    assert all(each.rows for each in pruned(world.jobs[1], dict.fromkeys(NOT_DELETED, 0)))
