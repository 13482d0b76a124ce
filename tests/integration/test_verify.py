"""Every check is silent on a healthy warehouse, and finds the corruption that it is there for.

A checker that is never seen to fail proves nothing: so each check has a corruption of its own here,
made with the constraints of that table out of the way where they would forbid it.
"""

# ruff: noqa: S608 - the statements are constants of this file
from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from etl.errors import ConfigurationError, Interrupted
from etl.stop import Stop
from etl.verify import CERTIFICATES, ROWS_SHOWN, CheckResult, check_files, verify
from etl.warehouse.status import status_summary
from etl.warehouse.tables import build_tables

NIGHT: Final = datetime(2026, 3, 1, 2, tzinfo=UTC)
EVERYTHING: Final = "{(,)}"
CREATED: Final = 1_700_000_000
FULL_FILTER: Final = '{"orderBy":"+createdAt"}'


def night(number: int, **more: float) -> datetime:
    return NIGHT + timedelta(days=number, **more)


class Builder:
    """Publishes, by plain SQL, what runs of the program would have published."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def insert(self, table: str, **values: object) -> None:
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        self.connection.execute(
            f"insert into {table} ({names}) values ({marks})".encode(),
            list(values.values()),
        )

    def run(self, run_id: int, partner_id: int, at: datetime, **values: object) -> None:
        succeeded = values.get("status", "succeeded") == "succeeded"
        defaults: dict[str, object] = {
            "run_id": run_id,
            "partner_id": partner_id,
            "walk_id": run_id,
            "mode": "full",
            "status": "succeeded",
            "started_at": at,
            "heartbeat_at": at + timedelta(minutes=10),
            "finished_at": at + timedelta(minutes=10),
            "published_at": at + timedelta(minutes=9) if succeeded else None,
            "coverage": EVERYTHING if succeeded else "{}",
        }
        self.insert("sync_run", **{**defaults, **values})

    def page(self, run_id: int, seq: int, span: str | None, rows: int, **values: object) -> None:
        defaults: dict[str, object] = {
            "run_id": run_id,
            "seq": seq,
            "page_index": seq + 1,
            "page_size": 500,
            "filter": FULL_FILTER,
            "requested_at": night(0),
            "received_at": night(0),
            "rows": rows,
            "first_created_at": datetime.fromtimestamp(CREATED, UTC),
            "last_created_at": datetime.fromtimestamp(CREATED + 1000, UTC),
            "span": span,
            "body_sha256": bytes(32),
        }
        self.insert("sync_page", **{**defaults, **values})

    def version(
        self,
        token: str,
        version: int,
        run_id: int,
        at: datetime,
        *until: Any,
        **values: object,
    ) -> None:
        """Published by ``run_id``, which began ``at``; ``until`` is the same of the next one."""
        absent = values.get("change_kind") == "absent"
        row: dict[str, object] = {
            "partner_id": 101,
            "token_id": token,
            "user_id": "anna",
            "status": 0,
            "created_at": datetime.fromtimestamp(CREATED + 10, UTC),
            "upload_url": "https://upload.example",
            "auto_finalize": True,
            "is_listed": not absent,
            "version": version,
            "change_kind": "first_seen",
            "valid_from": at + timedelta(minutes=9),
            "observed_at": at + timedelta(minutes=1),
            "last_listed_at": at - timedelta(days=1) if absent else None,
            "absence_confirmed_at": at if absent else None,
            "run_id": run_id,
            **values,
        }
        if not until:
            self.insert("upload_token", **row)
            return
        next_at, next_run_id = until
        self.insert(
            "upload_token_superseded",
            **row,
            valid_to=next_at + timedelta(minutes=9),
            superseded_by_run_id=next_run_id,
        )


def build_healthy(connection: psycopg.Connection[Any]) -> None:
    """Runs 1, 4, 5, 6 of account 101 and 7 of 102 published; 2 and 3 (abandoned) did not."""
    build = Builder(connection)
    build.run(1, 101, night(1), pages=2, rows_read=4, tokens_read=4, inserted=3, rejected=1)
    build.page(1, 0, f"(,{CREATED + 500})", 2)
    build.page(1, 1, f"[{CREATED + 400},)", 2)
    build.insert("rejected_row", run_id=1, reason="bad_time", payload=b"{}")
    build.run(2, 101, night(2), status="failed", error_kind="refused")
    build.run(
        3,
        101,
        night(2, hours=1),
        status="abandoned",
        error_kind="abandoned",
        pages=1,
        rows_read=1,
        staged=1,
        coverage=f"{{(,{CREATED})}}",
    )
    # Resumes run 3, and cannot read one second.
    build.run(
        4,
        101,
        night(2, hours=2),
        walk_id=3,
        resumed_from=3,
        pages=3,
        rows_read=5,
        tokens_read=2,
        changed=1,
        unchanged=1,
        absent=1,
        listed_before=3,
        unreadable=1,
        coverage=f"{{(,{CREATED + 700}),[{CREATED + 701},)}}",
        holes=f'[{{"span": "[{CREATED + 700},{CREATED + 701})", "reason": "unreadable"}}]',
    )
    build.page(4, 0, f"(,{CREATED + 700})", 3)
    build.page(4, 1, f"[{CREATED + 701},)", 2)
    build.page(4, 2, None, 0, filter='{"idIn":"b,c","orderBy":"+createdAt"}', page_index=1)
    # Reads the newest seconds only, and asks for an open token by its id: it is gone.
    build.run(
        5,
        101,
        night(3),
        mode="incremental",
        pages=2,
        rows_read=2,
        tokens_read=2,
        unchanged=2,
        absent=1,
        listed_before=2,
        coverage=f"{{[{CREATED + 900},)}}",
    )
    build.page(5, 0, f"[{CREATED + 900},)", 2)
    build.page(5, 1, None, 0, filter='{"idIn":"c","orderBy":"+createdAt"}', page_index=1)
    # By ids: b is back.  Its pages are pruned.
    build.run(
        6,
        101,
        night(4),
        mode="backfill",
        pages=1,
        rows_read=1,
        tokens_read=1,
        relisted=1,
        listed_before=1,
        coverage="{}",
    )
    build.run(7, 102, night(1), pages=1, rows_read=0)
    build.page(7, 0, "(,)", 0, first_created_at=None, last_created_at=None)
    build.run(8, 102, night(5), status="running", finished_at=None, published_at=None)

    build.version("a", 1, 1, night(1), night(2, hours=2), 4)
    build.version(
        "a",
        2,
        4,
        night(2, hours=2),
        change_kind="changed",
        changed_columns=["status", "auto_finalize"],
        status=3,
        auto_finalize=False,
    )
    build.version("b", 1, 1, night(1), night(2, hours=2), 4)
    build.version("b", 2, 4, night(2, hours=2), night(4), 6, change_kind="absent")
    build.version("b", 3, 6, night(4), change_kind="relisted", changed_columns=["is_listed"])
    build.version("c", 1, 1, night(1), night(3), 5)
    build.version("c", 2, 5, night(3), change_kind="absent")
    build.insert(
        "upload_token_staging",
        **{"walk_id": 8, "partner_id": 102, "token_id": "x", "kind": "missing"},
        created_at=night(0),
        from_lookup=False,
        observed_at=night(5),
    )


CORRUPTIONS: Final[dict[str, str]] = {
    "absence_changes_nothing_else": "update upload_token set status = 5 where token_id = 'c'",
    "absence_times_ordered": "update upload_token set absence_confirmed_at = last_listed_at "
    "- interval '1 second' where token_id = 'c'",
    "absences_observed": f"""update sync_page set filter = '{FULL_FILTER}' where run_id = 5""",
    "brake_held": "update sync_run set absent = 11 where run_id = 4",
    "certificate_adds_up": f"update sync_page set span = '[{CREATED + 401},)' "
    f"where run_id = 1 and seq = 1; update sync_page set span = '(,{CREATED + 400})' "
    "where run_id = 1 and seq = 0",
    CERTIFICATES: f"update sync_page set span = '(,{CREATED + 5000})' where run_id = 1 and seq = 0",
    "change_kinds_truthful": "update upload_token_superseded set is_listed = true "
    "where token_id = 'b' and version = 2",
    "changed_columns_truthful": "update upload_token set changed_columns = '{file_name}' "
    "where token_id = 'a'",
    "coverage_complete": "update sync_run set holes = '[]' where run_id = 4",
    "guards_in_place": "drop index uq_sync_run_running",
    "known_values_kept": "update upload_token set user_id = null where token_id = 'a'",
    "ledger_counts_tokens": "update sync_run set unchanged = unchanged + 1 where run_id = 1",
    "ledger_counts_versions": "update sync_run set changed = 0 where run_id = 4",
    "ledger_states_truthful": "update sync_run set error_kind = null where run_id = 2",
    "one_running_run": "update sync_run set status = 'running' where run_id = 7",
    "pages_counted": "delete from sync_page where run_id = 5 and seq = 1",
    "population_balance": "update upload_token set is_listed = false where token_id = 'a'",
    "published_in_order": "update sync_run set published_at = '2026-03-05 02:09Z' where run_id = 5",
    "published_within_run": "update sync_run set published_at = finished_at + interval '1 s' "
    "where run_id = 7",
    "rejected_rows_counted": "delete from rejected_row",
    "resumed_runs_continue": "update sync_run set mode = 'incremental' where run_id = 3",
    "staging_empty": "update upload_token_staging set walk_id = 7",
    "superseded_by_published_runs": "update upload_token_superseded set superseded_by_run_id = 2 "
    "where token_id = 'a'",
    "validity_contiguous": "update upload_token_superseded set valid_to = valid_to "
    "- interval '1 s' where token_id = 'a'",
    "versions_contiguous": "delete from upload_token_superseded where token_id = 'b' "
    "and version = 2",
    "versions_differ": "update upload_token set status = 0 where token_id = 'a'",
    "versions_of_own_partner": "update sync_run set partner_id = 102 where run_id = 6",
    "versions_of_published_runs": "update upload_token set run_id = 2 where token_id = 'a'",
    "versions_stamped_by_run": "update upload_token set valid_from = valid_from "
    "+ interval '1 s' where token_id = 'a'",
}
"""For each check, one corruption that it must find."""

MORE_CORRUPTIONS: Final = [
    ("versions_contiguous", "delete from upload_token where token_id = 'a'"),
    ("versions_contiguous", "update upload_token set version = 4 where token_id = 'b'"),
    ("coverage_complete", "update sync_run set coverage = '{(,5)}' where run_id = 5"),
    (
        "coverage_complete",
        "update sync_run set holes = jsonb_set(holes, '{0,reason}', '\"tie_group\"')"
        " where run_id = 4",
    ),
    (
        "coverage_complete",
        "update sync_run set range_from = '2023-01-01Z', range_to = '2023-02-01Z' "
        "where run_id = 6",
    ),
    ("population_balance", "update sync_run set listed_before = 4 where run_id = 4"),
    ("population_balance", "delete from upload_token where token_id = 'b'"),
    ("ledger_states_truthful", "update sync_run set finished_at = null where run_id = 1"),
    ("ledger_states_truthful", "update sync_run set published_at = now() where run_id = 2"),
    ("ledger_states_truthful", "update sync_run set finished_at = now() where run_id = 8"),
    ("ledger_states_truthful", "update sync_run set finished_at = '2020-01-01Z' where run_id = 3"),
    ("published_within_run", "update sync_run set published_at = '2100-01-01Z', "
     "finished_at = '2101-01-01Z' where run_id = 7"),
    ("superseded_by_published_runs", "update upload_token_superseded set valid_to = valid_to "
     "+ interval '1 s' where token_id = 'a'"),
    ("versions_of_published_runs", "update upload_token set run_id = 99 where token_id = 'a'"),
    ("staging_empty", "update upload_token_staging set walk_id = 99"),
    ("pages_counted", "update sync_page set rows = rows + 1 where run_id = 1 and seq = 1"),
    ("known_values_kept", "update upload_token set upload_url = null where token_id = 'a'"),
    ("brake_held", "update sync_run set absent = 50, overrides = '{\"accept_absences\": 49}' "
     "where run_id = 4"),
    (CERTIFICATES, "update sync_run set coverage = '{(,7)}' where run_id = 1"),
    (CERTIFICATES, "update sync_run set holes = '[]' where run_id = 4"),
    ("guards_in_place", "alter table upload_token drop constraint pk_upload_token"),
]  # fmt: skip


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(psycopg.connect(database_url, autocommit=True)) as connected:
        connected.execute("set search_path = kaltura")
        build_healthy(connected)
        yield connected


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
    ]
    assert all(result.purpose.endswith(".") for result in results)


def test_an_empty_warehouse_passes_every_check(database_url: str) -> None:
    assert failing(database_url) == {}


def test_every_check_has_a_corruption_that_it_finds() -> None:
    assert sorted(CORRUPTIONS) == sorted([CERTIFICATES, *[path.stem for path in check_files()]])


@pytest.mark.parametrize(("check", "corruption"), [*CORRUPTIONS.items(), *MORE_CORRUPTIONS])
def test_a_check_finds_its_corruption(
    database_url: str, connection: psycopg.Connection[Any], check: str, corruption: str
) -> None:
    if check != "guards_in_place":
        without_guards(connection)
    connection.execute(corruption.encode())
    found = failing(database_url)
    assert check in found
    assert len(found[check].rows) == found[check].total > 0


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
        9, 101, night(-5), published_at=night(4, minutes=9, microseconds=1), listed_before=2
    )
    assert failing(database_url) == {}


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
    with closing(Stop()) as stop:
        stop.request(signal.SIGTERM)
        with pytest.raises(Interrupted):
            verify(database_url, stop=stop)


def test_the_status_tells_runs_freshness_and_tokens(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("update upload_token set status = 77 where token_id = 'b'")
    summary: dict[str, Any] = status_summary(database_url, "kaltura", None)
    assert [(row["partner_id"], row["running"]) for row in summary["accounts"]] == [
        (101, False),
        (102, True),
    ]
    assert summary["accounts"][0]["published_at"] == night(4, minutes=9)
    assert summary["accounts"][0]["complete_at"] == night(2, hours=2, minutes=9)
    assert [row["run_id"] for row in summary["last_runs"]] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert summary["tokens_by_status"] == [
        {"partner_id": 101, "status": "PENDING", "listed": 0, "absent": 1},
        {"partner_id": 101, "status": "CLOSED", "listed": 1, "absent": 0},
        {"partner_id": 101, "status": "UNKNOWN_77", "listed": 1, "absent": 0},
    ]
    only: dict[str, Any] = status_summary(database_url, "kaltura", 102)
    assert {row["partner_id"] for row in only["last_runs"]} == {102}
    assert only["tokens_by_status"] == []


def test_the_document_names_every_check_and_its_purpose() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/verify.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \| (.*?\.) \| [I0-9 ]*\|$", text, re.MULTILINE)
    purposes = [
        (path.stem, path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("-- "))
        for path in check_files()
    ]
    assert named[:-1] == purposes
    assert named[-1][0] == CERTIFICATES
