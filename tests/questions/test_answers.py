"""Each question's answer about the known account, compared with the lives themselves."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from etl.warehouse.access.grants import grant
from tests.questions.accounts import ACCOUNTS, LivedAccount
from tests.questions.answers import OUTCOMES
from tests.questions.expected import EXPECTED
from tests.questions.lives import PARTIAL, Life
from tests.questions.questions import QUERIES, QUESTIONS, ROOT
from tests.questions.truth import FAILED, versions
from tests.support.moments import fill_moments


@pytest.fixture
def connection(known_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(
        known_url, autocommit=True, options="-c search_path=kaltura -c TimeZone=UTC"
    ) as opened:
        yield opened


@pytest.mark.parametrize("file", QUESTIONS)
def test_the_answer_is_what_the_account_lived_through(
    file: str, connection: psycopg.Connection[Any]
) -> None:
    expected = EXPECTED[file]()

    found = QUESTIONS[file].ask(connection)

    assert found == expected
    assert [list(row) for row in found] == [list(row) for row in expected]  # columns in this order


def test_every_question_is_asked() -> None:
    files = {file.name for file in QUERIES.glob("*.sql")}

    assert files == QUESTIONS.keys() == EXPECTED.keys()


def test_an_analyst_may_ask_every_question(known_url: str) -> None:
    """With the rights that ``grant`` gives, and no more."""
    role = f"analyst_{secrets.token_hex(4)}"
    url = f"{known_url}&options=-c%20default_transaction_read_only%3Doff"
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("set search_path = kaltura")
        owner.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
        try:
            grant(url, "kaltura", {"analyst": role}, apply=True)
            owner.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            for question in QUESTIONS.values():
                assert question.ask(owner), question.file
        finally:
            owner.execute("reset role")
            owner.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))
            owner.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=map(str, ACCOUNTS))
def test_a_pause_is_within_its_bounds_and_none_that_was_seen_is_left_out(
    account: LivedAccount, connection: psycopg.Connection[Any]
) -> None:
    """Against the lives: what is certain is true, and what is missing no run can have seen."""
    told = QUESTIONS["resumed_uploads.sql"].ask(
        connection, partner_id=str(account.partner_id), since="2025-01-01"
    )

    pauses = {
        (life.token_id, begin): length
        for life in account.lives
        for begin, length in _pauses(life)
        if begin + length <= account.published[-1].began_at
    }
    for row in told:
        true = pauses[row["token_id"], row["paused_at"]]
        assert row["at_least"] <= true <= row["at_most"], row
        assert true >= timedelta(hours=12) or not row["certain"], row
    assert sum(row["certain"] for row in told) >= 4
    found = {(row["token_id"], row["paused_at"]) for row in told}
    seen = {(version.token_id, version.updated_at) for version in versions(account)}
    long = {pause for pause, length in pauses.items() if length >= timedelta(hours=12)}
    assert long & seen <= found
    assert {pause for pause in found if pause not in long} < found


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=map(str, ACCOUNTS))
def test_an_upload_failed_within_its_bounds(
    account: LivedAccount, connection: psycopg.Connection[Any]
) -> None:
    """Against the lives: the true moment, and no failure that a run has seen is left out."""
    told = QUESTIONS["failed_uploads.sql"].ask(
        connection, partner_id=str(account.partner_id), since="2025-01-01"
    )

    true = {
        life.token_id: move.at for life in account.lives for move in life.moves if move.to in FAILED
    }
    seen = {version.token_id for version in versions(account) if version.status in FAILED}
    assert {row["token_id"] for row in told} == seen
    for row in told:
        assert row["failed_after"] <= true[row["token_id"]] <= row["failed_before"], row
        assert row["failed_after"] <= row["failed_at"] <= row["failed_before"], row


def test_a_month_is_compared_when_it_has_been_seen_to_its_end(
    connection: psycopg.Connection[Any],
) -> None:
    """Asked on the first of April, when the last run began on the day before."""
    told = QUESTIONS["growth.sql"].ask(connection, now="2026-04-01 09:00+00")
    assert [(row["month"], row["percent_more"] is None) for row in told[-2:]] == [
        ("2026-02", False),
        ("2026-03", True),
    ]


def test_what_is_called_failed_and_made_good(database_url: str) -> None:
    """DELETED is no failure, and a hole that stays for ever does not hide that a run was good."""
    nights = [datetime(2026, 3, number, 2, tzinfo=UTC) for number in (3, 5, 6)]
    for_ever = '{"span": "[10,12)", "reason": "unreadable", "tokens": 1}'
    once = '{"span": "[20,22)", "reason": "unreadable", "tokens": 1}'
    runs: list[tuple[int, datetime, str, str, str, int]] = [
        (1, nights[0], "succeeded", "{(,10),[12,20),[22,)}", f"[{for_ever}, {once}]", 2),
        (2, nights[1], "failed", "{(,100)}", "[]", 0),
        (3, nights[2], "succeeded", "{(,10),[12,)}", f"[{for_ever}]", 1),
    ]
    stuck = {"deleted": 5, "timed out": 4, "error": 6, "closed": 3, "still open": 1, "untold": 6}
    with psycopg.connect(
        database_url, autocommit=True, options="-c search_path=kaltura -c TimeZone=UTC"
    ) as connection:
        for number, at, status, coverage, holes, unreadable in runs:
            connection.execute(
                "insert into sync_run (run_id, walk_id, partner_id, mode, status, started_at, "
                "heartbeat_at, finished_at, published_at, coverage, holes, unreadable, "
                "program_version) overriding system value values (%(run_id)s, %(run_id)s, 7, "
                "'full', %(status)s, %(at)s, %(at)s, %(at)s, %(published_at)s, %(coverage)s, "
                "%(holes)s, %(unreadable)s, '')",
                {
                    "run_id": number,
                    "at": at,
                    "published_at": at if status == "succeeded" else None,
                    "status": status,
                    "coverage": coverage,
                    "holes": holes,
                    "unreadable": unreadable,
                },
            )
        old = nights[0] - timedelta(days=3)
        for token_id, code in stuck.items():
            values = {
                "token_id": token_id,
                "old": old,
                "first": nights[0],
                "last": nights[2],
                "status": code,
                # The service may tell none: that is no failure yet.
                "before": None if token_id == "untold" else 1,
            }
            connection.execute(
                "insert into upload_token_superseded (partner_id, token_id, status, created_at, "
                "updated_at, is_listed, version, change_kind, valid_from, observed_at, run_id, "
                "valid_to, superseded_by_run_id) values (7, %(token_id)s, %(before)s, %(old)s, "
                "%(old)s, true, 1, 'first_seen', %(first)s, %(first)s, 1, %(last)s, 3)",
                values,
            )
            connection.execute(
                "insert into upload_token (partner_id, token_id, status, created_at, updated_at, "
                "is_listed, version, change_kind, changed_columns, valid_from, observed_at, run_id)"
                " values (7, %(token_id)s, %(status)s, %(old)s, %(last)s, true, 2, 'changed', "
                "'{status,updated_at}', %(last)s, %(last)s, 3)",
                values,
            )
        fill_moments(connection)

        def ask(file: str, **variables: str) -> list[dict[str, Any]]:
            return QUESTIONS[file].ask(
                connection, partner_id="7", since="2026-03-01", now="2026-03-08", **variables
            )

        (became,) = ask("stuck_at_run.sql", run_id="1")
        days = ask("status_each_day.sql")
        failed = {row["token_id"]: row for row in ask("failed_uploads.sql")}
        troubled = {row["run_id"]: row["made_good_at"] for row in ask("troubled_runs.sql")}
        statuses = ask("status_now.sql")
        listed = connection.cursor(row_factory=dict_row).execute(
            (ROOT / "sql" / "report" / "failed.sql").read_text(encoding="utf-8").encode(),
            {
                "partner_id": 7,
                "rows": 10,
                "seen_from": datetime(2026, 3, 1),
                "since": nights[1],
                "time_zone": "UTC",
            },
        )
        reported = {row["token_id"]: row for row in listed}

    assert {name: became[name] for name in ("stuck", *OUTCOMES)} == {
        "stuck": 5,
        "succeeded": 1,
        "failed": 2,
        "abandoned": 0,
        "deleted": 1,
        "still_open": 1,
    }
    assert failed.keys() == {"timed out", "error", "untold"}
    for name in ("status", "failed_after", "failed_at", "failed_before"):
        assert failed["untold"][name] == failed["error"][name]
    assert reported.keys() == failed.keys()
    for name in ("status", "failed_at", "is_new"):
        assert reported["untold"][name] == reported["error"][name]
    assert {name: days[-1][name] for name in ("timed_out", "deleted", "error", "closed")} == {
        "timed_out": 1,
        "deleted": 1,
        "error": 2,
        "closed": 1,
    }
    assert "failed" not in str(statuses)
    assert troubled == {1: None, 2: nights[2], 3: None}


def test_an_upload_that_is_not_listed_is_not_seen_pausing(database_url: str) -> None:
    """It may have gone on before the run that misses it: it was last seen by the one before."""
    nights = [datetime(2026, 3, number, 2, tzinfo=UTC) for number in (2, 4, 6)]
    made = nights[0] - timedelta(hours=3)
    with psycopg.connect(
        database_url, autocommit=True, options="-c search_path=kaltura -c TimeZone=UTC"
    ) as connection:
        for number, night in enumerate(nights, 1):
            connection.execute(
                "insert into sync_run (run_id, walk_id, partner_id, mode, status, started_at, "
                "heartbeat_at, finished_at, published_at, coverage, program_version) overriding "
                "system value values (%(run)s, %(run)s, 7, 'full', 'succeeded', %(at)s, %(at)s, "
                "%(at)s, %(at)s, '{(,)}', '')",
                {"run": number, "at": night},
            )
        values = {
            "made": made,
            "moved": made + timedelta(hours=1),
            "went_on": nights[0] + timedelta(hours=13),
            **{f"at_{number}": night for number, night in enumerate(nights, 1)},
        }
        columns = (
            "partner_id, token_id, status, created_at, uploaded_size_bytes, updated_at, is_listed, "
            "version, change_kind, valid_from, observed_at, run_id, last_listed_at, "
            "absence_confirmed_at"
        )
        connection.execute(
            f"insert into upload_token_superseded ({columns}, valid_to, superseded_by_run_id) "  # noqa: S608
            "values (7, 't', 1, %(made)s, 10, %(moved)s, true, 1, 'first_seen', %(at_1)s, %(at_1)s,"
            " 1, null, null, %(at_2)s, 2), (7, 't', 1, %(made)s, 10, %(moved)s, false, 2, 'absent',"
            " %(at_2)s, %(at_2)s, 2, %(at_1)s, %(at_2)s, %(at_3)s, 3)".encode(),
            values,
        )
        connection.execute(
            f"insert into upload_token ({columns}, changed_columns) values (7, 't', 3, %(made)s, "  # noqa: S608
            "20, %(went_on)s, true, 3, 'relisted', %(at_3)s, %(at_3)s, 3, null, null, "
            "'{status,uploaded_size_bytes,updated_at}')".encode(),
            values,
        )

        (row,) = QUESTIONS["resumed_uploads.sql"].ask(
            connection, partner_id="7", since="2026-03-01"
        )

    assert (row["at_least"], row["at_most"], row["certain"]) == (
        timedelta(hours=2),
        timedelta(hours=15),
        False,
    )


def _pauses(life: Life) -> Iterator[tuple[datetime, timedelta]]:
    """From when some bytes had arrived until the next ones did."""
    partial = [move for move in life.moves if move.received is not None]
    for move, following in pairwise(partial):
        if move.to == PARTIAL and (following.received or 0) > (move.received or 0):
            yield move.at, following.at - move.at
