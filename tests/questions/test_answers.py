"""Each question's answer about the known account, compared with the lives themselves."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from etl.warehouse.access.grants import grant
from tests.questions.expected import EXPECTED
from tests.questions.questions import QUERIES, QUESTIONS


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
