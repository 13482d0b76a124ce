"""Every check is silent on a healthy warehouse, and finds the corruption that it is there for.

A checker that is never seen to fail proves nothing: so each check has a corruption of its own here,
made with the constraints of that table out of the way where they would forbid it.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from etl.errors import ConfigurationError, Interrupted
from etl.process.stop import Stop
from etl.resources import sql_directory
from etl.tokens.keys import PARTLY_LOADED, STATUS_REASONS
from etl.tokens.token import COMPARED, VOLATILE
from etl.verify.checks import CERTIFICATES, DIGESTS, ROWS_SHOWN, CheckResult, verify
from etl.warehouse.load import digests
from etl.warehouse.read.checks import check_files
from etl.warehouse.read.status import status_summary
from etl.warehouse.schema.database import open_database
from etl.warehouse.schema.tables import build_tables
from tests.support.corruptions import (
    ALSO_FOUND,
    CORRUPTIONS,
    MORE_CORRUPTIONS,
    Builder,
    build_healthy,
    night,
)
from tests.support.model import Row
from tests.support.roles import own_database


@pytest.fixture(scope="module")
def healthy(postgres_url: str, template_database: str) -> Iterator[str]:
    """The healthy warehouse that the tests copy."""
    with own_database(postgres_url, template_database) as url:
        with opened(url) as connection:
            build_healthy(connection)
        yield url


@pytest.fixture(scope="module")
def unguarded(postgres_url: str, healthy: str) -> Iterator[str]:
    """Such a warehouse without what would forbid a corruption, for tests to copy."""
    with own_database(postgres_url, name_of(healthy)) as url:
        with opened(url) as connection:
            without_guards(connection)
        yield url


@pytest.fixture(scope="module")
def rolling_back(postgres_url: str, unguarded: str) -> Iterator[psycopg.Connection[Any]]:
    """To one of these, for tests that roll back what they do."""
    with own_database(postgres_url, name_of(unguarded)) as url, opened(url) as connection:
        yield connection


@pytest.fixture
def database_url(postgres_url: str, healthy: str) -> Iterator[str]:
    with own_database(postgres_url, name_of(healthy)) as url:
        yield url


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with opened(database_url) as connected:
        yield connected


@contextmanager
def opened(url: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(psycopg.connect(url, autocommit=True)) as connected:
        connected.execute("set search_path = kaltura")
        yield connected


def name_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def without_guards(connection: psycopg.Connection[Any]) -> None:
    """Drop what would forbid a corruption: CHECKs and the index of the lease."""
    for table, name in connection.execute(
        "select conrelid::regclass::text, conname from pg_constraint "
        "where connamespace = 'kaltura'::regnamespace and contype = 'c'"
    ).fetchall():
        connection.execute(f'alter table {table} drop constraint "{name}"'.encode())
    connection.execute("drop index if exists uq_sync_run_running")


def failing(url: str, partner_id: int | None = None) -> dict[str, CheckResult]:
    return {result.name: result for result in verify(url, partner_id=partner_id) if not result.ok}


def rows_of(connection: psycopg.Connection[Any], check: str) -> list[Any]:
    """What one check finds."""
    (path,) = [path for path in check_files() if path.stem == check]
    return connection.execute(path.read_bytes()).fetchall()


@pytest.mark.postgres15
def test_a_healthy_warehouse_passes_every_check(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    assert connection.info.dbname in database_url
    results = verify(database_url)
    assert [result for result in results if not result.ok] == []
    assert [result.name for result in results] == [
        *[path.stem for path in check_files()],
        CERTIFICATES,
        DIGESTS,
    ]
    assert all(result.purpose.endswith(".") for result in results)


def test_an_empty_warehouse_passes_every_check(postgres_url: str, template_database: str) -> None:
    with own_database(postgres_url, template_database) as url:
        assert failing(url) == {}


def test_every_check_has_a_corruption_that_it_finds() -> None:
    names = [CERTIFICATES, DIGESTS, *[path.stem for path in check_files()]]
    assert sorted(CORRUPTIONS) == sorted(names)


@pytest.mark.parametrize(("check", "corruption"), CORRUPTIONS.items())
def test_a_check_finds_its_corruption(
    postgres_url: str, healthy: str, unguarded: str, check: str, corruption: str
) -> None:
    sound = healthy if check == "guards_in_place" else unguarded
    with own_database(postgres_url, name_of(sound)) as url:
        with opened(url) as connection:
            connection.execute(corruption.encode())
        found = failing(url)
    assert len(found[check].rows) == min(found[check].total, ROWS_SHOWN) > 0
    if check != "guards_in_place":
        assert found.keys() - {"guards_in_place"} == {check} | ALSO_FOUND.get(check, set())


@pytest.mark.parametrize(("check", "corruption"), MORE_CORRUPTIONS)
def test_a_check_finds_every_kind_of_its_corruption(
    postgres_url: str,
    unguarded: str,
    rolling_back: psycopg.Connection[Any],
    check: str,
    corruption: str,
) -> None:
    if check == CERTIFICATES:
        with own_database(postgres_url, name_of(unguarded)) as url:
            with opened(url) as connection:
                connection.execute(corruption.encode())
            assert check in failing(url)
        return
    with rolling_back.transaction(force_rollback=True):
        rolling_back.execute(corruption.encode())
        assert rows_of(rolling_back, check) != []


def test_intervals_of_small_and_of_large_accounts_are_derived_again(
    database_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_database(database_url, "kaltura") as database:

        def wrong(tokens_per_interval: int) -> list[Row]:
            monkeypatch.setattr(digests, "TOKENS_PER_INTERVAL", tokens_per_interval)
            return list(digests.wrong_fingerprints(database, 101, intervals=20, seed=1))

        assert (wrong(500), wrong(1)) == ([], [])
        connection.execute(CORRUPTIONS[DIGESTS].encode())
        assert len(wrong(500)) == 1
        assert 1 <= len(wrong(1)) <= 20


EDITS = {
    "user_id": "user_id || '.'",
    "status": "status + 1",
    "file_name": "'other.mp4'",
    "file_size_bytes": "7",
    "uploaded_size_bytes": "7",
    "created_at": "created_at - interval '1 s'",
    "updated_at": "'2026-01-01Z'",
    "attached_object_type": "'1'",
    "attached_object_id": "''",
    "extra": "'{}'",
    "digest": "digest - 1",
    "user_digest": "user_digest - 1",
}


def test_an_edit_without_its_digest_is_found(
    database_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One column of one token at a time: each compared one, and the digests themselves."""
    monkeypatch.setattr("etl.verify.checks.check_files", list)  # only what is derived in Python
    assert EDITS.keys() == {*COMPARED, "digest", "user_digest"}
    connection.execute("create temporary table kept as table upload_token")
    for column, value in EDITS.items():
        connection.execute(
            f"update upload_token set {column} = {value} where token_id = 'd'".encode()  # noqa: S608
        )
        found = failing(database_url)[DIGESTS]
        assert {"partner_id": 101, "token_id": "d"} in found.rows, column
        # The rest are intervals in which it lies.
        assert {row.get("token_id", "d") for row in found.rows} == {"d"}
        connection.execute("delete from upload_token")
        connection.execute("insert into upload_token table kept")
    for column in VOLATILE:
        connection.execute(f"update upload_token set {column} = null".encode())  # noqa: S608
    assert DIGESTS not in failing(database_url)


def test_the_guards_are_all_that_the_tables_have(connection: psycopg.Connection[Any]) -> None:
    def names(table: Table) -> Iterator[str | None]:
        preparer = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
        for constraint in table.constraints:
            yield preparer.format_constraint(constraint)
        yield from (str(index.name) for index in table.indexes)

    without_guards(connection)
    for (table,) in connection.execute(
        "select tablename from pg_tables where schemaname = 'kaltura'"
    ).fetchall():
        connection.execute(f"drop table {table} cascade".encode())
    guards = next(path for path in check_files() if path.stem == "guards_in_place")
    missing = {row[1] for row in connection.execute(guards.read_bytes()).fetchall()}
    expected = {name for table in build_tables().metadata.tables.values() for name in names(table)}
    assert missing == expected - {"pk_upload_token_staging", "pk_rejected_row"}


def test_a_check_shows_some_rows_and_counts_all(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "insert into upload_token select partner_id, 'many' || number, user_id, status, "
        "file_name, file_size_bytes, uploaded_size_bytes, created_at, updated_at, "
        "attached_object_type, attached_object_id, auto_finalize, upload_url, extra, is_listed, "
        "1, 'first_seen', null, valid_from, observed_at, null, null, 2 "
        "from upload_token, generate_series(1, 50) as number where token_id = 'a'"
    )
    found = failing(database_url)["versions_of_published_runs"]
    assert (len(found.rows), found.total) == (ROWS_SHOWN, 50)
    assert found.rows[0]["partner_id"] == 101
    assert "verify_total" not in found.rows[0]


def test_one_account_can_be_looked_at_alone(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("update upload_token set run_id = 2 where token_id = 'a'")
    connection.execute("update sync_run set coverage = '{(,7)}' where run_id = 1")
    assert failing(database_url, 102) == {}
    assert {"versions_of_published_runs", CERTIFICATES} <= failing(database_url, 101).keys()


def test_a_stamp_that_only_follows_the_last_is_right_after_the_clock_was_set_back(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    Builder(connection).run(
        9,
        101,
        night(-5),
        published_at=night(4, minutes=9, microseconds=1),
        listed_before=3,
        pages=1,
        pages_pruned=1,
    )
    assert failing(database_url) == {}


@pytest.mark.parametrize(
    ("ids", "ok"),
    [
        ("c", True),
        ("a,c", True),
        ("a,b", False),
        ("a,…,d", True),
        ("a,…,b", False),
        ("d,…,e", False),
        ("a, … (500 ids)", True),
        ("d, … (500 ids)", False),
    ],
)
def test_a_long_look_up_is_told_by_its_first_and_last_id(
    connection: psycopg.Connection[Any], ids: str, ok: bool
) -> None:
    connection.execute(
        "update sync_page set filter = jsonb_build_object('idIn', %s::text)::text "
        "where run_id = 5 and seq = 2",
        [ids],
    )
    assert (rows_of(connection, "absences_observed") == []) == ok


def test_a_replayed_run_is_held_to_what_it_replays(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "update sync_run set overrides = jsonb_build_object('replayed_mode', mode), "
        "mode = 'replay' where status = 'succeeded'"
    )
    assert failing(database_url) == {}
    connection.execute("update sync_run set coverage = '{(,5)}', holes = '[]' where run_id = 4")
    assert {"coverage_complete", CERTIFICATES} <= failing(database_url).keys()


@pytest.mark.parametrize(
    ("edit", "checks"),
    [
        # A column that the version after does not name, or names without reason.
        ("user_id = 'mallory'", {"changed_columns_truthful"}),
        ("file_name = 'other.mp4'", {"changed_columns_truthful"}),
        ("updated_at = created_at", {"changed_columns_truthful"}),
        ("extra = '{}'", {"changed_columns_truthful"}),
        ("status = 3", {"changed_columns_truthful", "versions_differ"}),
        ("valid_to = valid_to - interval '1 s'", {"validity_contiguous"}),
        ("valid_from = valid_from + interval '1 s'", {"versions_stamped_by_run"}),
        ("observed_at = observed_at - interval '1 day'", {"versions_observed_in_walk"}),
        ("changed_columns = '{status}'", {"changed_columns_truthful"}),
        # The version after names the column anyway, but what was told of the change is kept.
        ("status = 1", {"status_moments_truthful"}),
        # An edit that fits.
        ("auto_finalize = false", set()),
    ],
)
def test_an_edit_of_the_past_is_found_where_it_does_not_fit(
    database_url: str, connection: psycopg.Connection[Any], edit: str, checks: set[str]
) -> None:
    """What verify finds of it, as docs/reference/verify.md says."""
    connection.execute(
        f"update upload_token_superseded set {edit} where token_id = 'a'".encode()  # noqa: S608
    )
    found = failing(database_url).keys()
    assert checks <= found
    assert bool(checks) == bool(found)


def test_accepted_absences_release_the_brake(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "update sync_run set absent = 50, overrides = '{\"accept_absences\": 50}' where run_id = 4"
    )
    assert "brake_held" not in failing(database_url)


def test_verify_changes_nothing_and_needs_the_schema(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    # In this database only: the other tests of the run connect to the same server with this role.
    database = psycopg.sql.Identifier(connection.info.dbname)
    read_only = psycopg.sql.SQL("alter database {} set default_transaction_read_only = on")
    connection.execute(read_only.format(database))
    assert failing(database_url) == {}
    connection.execute("update alembic_version set version_num = '0000'")
    with pytest.raises(ConfigurationError, match="kaltura-etl migrate"):
        verify(database_url)


def test_verify_stops_when_asked(database_url: str) -> None:
    stop = Stop()
    stop.request(signal.SIGTERM)
    with pytest.raises(Interrupted):
        verify(database_url, stop=stop)


def test_the_status_tells_runs_freshness_and_tokens(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("update upload_token set status = 77 where token_id = 'b'")
    connection.execute("update sync_run set heartbeat_at = now() where status = 'running'")
    summary: Row = status_summary(database_url, "kaltura", None)
    assert [(row["partner_id"], row["running"]) for row in summary["accounts"]] == [
        (101, False),
        (102, True),
    ]
    assert summary["accounts"][0]["published_at"] == night(4, minutes=9)
    assert summary["accounts"][0]["complete_at"] == night(2, hours=2, minutes=9)
    assert [row["run_id"] for row in summary["last_runs"]] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert summary["tokens_by_status"] == [
        {"partner_id": 101, "status": "PENDING", "listed": 1, "absent": 1},
        {"partner_id": 101, "status": "CLOSED", "listed": 1, "absent": 0},
        {"partner_id": 101, "status": "UNKNOWN_77", "listed": 1, "absent": 0},
    ]
    only: Row = status_summary(database_url, "kaltura", 102)
    assert {row["partner_id"] for row in only["last_runs"]} == {102}
    assert only["tokens_by_status"] == []


def test_the_document_names_every_check_and_its_purpose() -> None:
    text = (Path(__file__).parents[3] / "docs/reference/verify.md").read_text(encoding="utf-8")
    text = text.partition("\n## ")[0]
    named = re.findall(r"^\| `(\w+)` \| (.*?\.) \|$", text, re.MULTILINE)
    purposes = [
        (path.stem, path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("-- "))
        for path in check_files()
    ]
    assert named[:-2] == purposes
    assert [name for name, _ in named[-2:]] == [CERTIFICATES, DIGESTS]


LEAVES_NO_TRACE = {
    "upload_token_staging": "a crash of the server empties it, and the walk then starts over",
    "sync_run": "rows of runs that did not publish; a published one is missed, see below",
    "erasure": "the pseudonyms remain in the versions",
    "erasure_key": "the same",
    "pruning": "nothing was pruned",
}
"""Tables whose rows no check misses in this warehouse."""


def test_every_row_that_is_lost_is_missed(connection: psycopg.Connection[Any]) -> None:
    """One row at a time, and all rows of a table: no check is satisfied by nothing."""
    connection.execute("set session_replication_role = replica")  # foreign keys off
    tables = [
        table
        for (table,) in connection.execute(
            "select tablename from pg_tables where schemaname = 'kaltura' "
            "and tablename <> 'alembic_version'"
        ).fetchall()
    ]
    checks = [path.read_bytes() for path in check_files()]

    def lost(deletion: str) -> bool:
        """Whether a check misses it; everything is put back."""
        with connection.transaction(force_rollback=True):
            connection.execute(deletion.encode())
            return any(connection.execute(check).fetchall() for check in checks)

    silent = []
    for table in sorted(set(tables) - LEAVES_NO_TRACE.keys()):
        places = connection.execute(f"select ctid::text from {table}".encode()).fetchall()  # noqa: S608
        assert places, table
        silent += [
            (table, place)
            for (place,) in places
            if not lost(f"delete from {table} where ctid = '{place}'")  # noqa: S608
        ]
        if not lost(f"delete from {table}"):  # noqa: S608
            silent.append((table, "all"))
    assert silent == []
    assert lost("delete from sync_run")
    assert lost("delete from sync_run where run_id = 1")


def test_an_account_without_a_published_run_is_told(
    database_url: str, connection: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert connection.info.dbname in database_url
    for partner_id, told in ((101, False), (999, True)):
        caplog.clear()
        assert failing(database_url, partner_id) == {}
        assert ("nothing to check" in caplog.text) == told


def test_the_check_of_rejected_rows_knows_those_that_were_loaded_in_part(
    empty_database_url: str,
) -> None:
    """As ``etl.tokens.keys`` does: the patterns of the one are the reasons of the other."""
    check = (sql_directory() / "checks" / "rejected_rows_counted.sql").read_text()
    condition = check[check.index("reason !~") : check.index(") as distinct_row")]
    words = ("token_id_nul", "partner_id_other_case", "created_at_in_future", "duplicate_id")
    rejected = {*words, *STATUS_REASONS, "a_reason_to_come"}
    with psycopg.connect(empty_database_url) as connection:
        counted = connection.execute(
            f"select reason from unnest(%s::text[]) as r (reason) where {condition}".encode(),  # noqa: S608
            [[*rejected, *PARTLY_LOADED]],
        ).fetchall()
    assert {reason for (reason,) in counted} == rejected
