"""The known accounts' warehouse: filled once in the whole test run, read by every question."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from tests.questions.accounts import ACCOUNTS
from tests.questions.known_account import load_account
from tests.support.databases import made_once

NAME = "known_account"


@pytest.fixture(scope="session")
def known_url(postgres_url: str, template_database: str, postgres_major: str) -> str:
    """The URL of a database that holds the history of ``ACCOUNTS``.  It can only be read.

    All workers share it; it goes with the server.
    """

    def fill(url: str) -> None:
        for lived in ACCOUNTS.values():
            load_account(url, lived)
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            connection.execute(
                sql.SQL("alter database {} set default_transaction_read_only = on").format(
                    sql.Identifier(connection.info.dbname)
                )
            )

    return made_once(postgres_url, NAME, template_database, fill, major=postgres_major)
