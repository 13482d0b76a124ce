"""Each question's answer about the known account, compared with the lives themselves."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from etl.verify.checks import verify
from etl.warehouse.access.grants import grant
from tests.questions.expected import EXPECTED
from tests.questions.lives import (
    BACK,
    LIVES,
    NIGHTS,
)
from tests.questions.questions import QUERIES, QUESTIONS
from tests.questions.truth import (
    NAMES,
    NOT_LISTED,
    status_changes,
)


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


def test_no_answer_knows_what_came_and_went_between_two_nights(
    connection: psycopg.Connection[Any],
) -> None:
    (count,) = connection.execute(
        "select count(*) from upload_token_history "
        "where partner_id = 102 and token_id = '0_24_unseen'"
    ).fetchone() or [None]

    assert count == 0


def test_every_change_happened_within_its_interval(connection: psycopg.Connection[Any]) -> None:
    """Against the lives themselves: the moment of every change, not what ``truth`` makes of it."""
    lives = {life.token_id: life for life in LIVES}
    rows = connection.execute(
        "select token_id, version, to_status, happened_at, happened_after, happened_before "
        "from upload_token_status_history where partner_id = 102"
    ).fetchall()
    assert len(rows) == len(status_changes())

    for token_id, version, to_status, happened_at, after, before in rows:
        life = lives[token_id]
        happened = [life.created_at, *(move.at for move in life.moves)]
        assert any(after <= each <= before for each in happened), (token_id, version)
        assert after <= happened_at <= before
        if to_status not in (NOT_LISTED, "PENDING"):
            moves = [
                move.at
                for move in life.moves
                if move.to == BACK or (isinstance(move.to, int) and NAMES.get(move.to) == to_status)
            ]
            assert any(after <= each <= before for each in moves), (token_id, version)


def test_the_interval_and_estimate_of_every_change(connection: psycopg.Connection[Any]) -> None:
    rows = connection.execute(
        "select token_id, version, from_status, to_status, change_kind, happened_at, "
        "happened_after, happened_before, run_id from upload_token_status_history "
        "where partner_id = 102"
    ).fetchall()

    assert {row[:2]: row[2:] for row in rows} == {
        (after.life.token_id, after.version): (
            before and before.seen_as,
            after.seen_as,
            after.kind,
            after.happened_at,
            after.happened_after,
            after.observed_at,
            after.night.run_id,
        )
        for before, after in status_changes()
    }


def test_the_nights_went_as_they_are_told(connection: psycopg.Connection[Any]) -> None:
    rows = connection.execute(
        "select run_id, status, started_at, published_at, resumed_from, unreadable "
        "from sync_run where partner_id = 102 order by run_id"
    ).fetchall()

    assert rows == [
        (
            night.run_id,
            "failed" if night.failed else "succeeded",
            night.began_at,
            None if night.failed else night.published_at,
            night.resumed_from,
            int(night.unreadable is not None),
        )
        for night in NIGHTS
    ]
    # Run 9 took over what run 8 had saved before it failed, and nothing of it changed in between.
    (saved,) = connection.execute("select coverage from sync_run where run_id = 8").fetchone() or []
    assert saved
    failed, resumed = NIGHTS[7], NIGHTS[8]
    for life in LIVES:
        was_saved = any(int(life.created_at.timestamp()) in part for part in saved)
        if was_saved and life.created_at < failed.began_at:
            assert not any(failed.began_at < each.at < resumed.observed_at for each in life.moves)


def test_the_known_warehouse_breaks_no_invariant(known_url: str) -> None:
    """So the calendar that it was set to is one that real runs could have had."""
    broken = {result.name: result.rows for result in verify(known_url) if not result.ok}

    assert broken == {}
