"""Erasing and pruning one account changes no row of another, in partitioned tables as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import psycopg
import pytest

from etl.errors import DataRefused
from etl.simulator import SimulatorServer, generate_account
from etl.tokens.pseudonyms import Pseudonyms
from etl.warehouse.privacy.prune import Pruned, prune
from etl.warehouse.schema.database import open_database
from tests.support.erasure import ANNA, KEY, assert_emptied, assert_verified, erased
from tests.support.job import Job
from tests.support.partitions import (
    HELD_BY_ANNA,
    PAGE_CAP,
    PARTNERS,
    SECRETS,
    SEED,
    TOKENS,
    World,
    assert_every_account_has_rows_everywhere,
    assert_one_account_a_partition,
    impersonal,
    live_through_some_nights,
    night_goes_on,
    of_account,
    of_others,
    partition_tables,
    rows_by_account,
)
from tests.support.roles import own_database
from tests.support.searching import fingerprint, search


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
        assert_emptied(job, HELD_BY_ANNA)
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
    assert_emptied(job, ("o2",))
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
    # What is counted as staged must be there, or the walk is not resumed.
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
    assert_emptied(job, HELD_BY_ANNA)
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
