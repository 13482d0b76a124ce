"""The known accounts' warehouse: filled once in the whole test run, read by every question."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from tests.questions.accounts import ACCOUNTS
from tests.questions.known_account import load_account

NAME = "known_account"


@pytest.fixture(scope="session")
def known_url(postgres_url: str, template_database: str, postgres_major: str) -> str:
    """The URL of a database that holds the history of ``ACCOUNTS``.  It can only be read.

    All workers share it; it goes with the server.
    """
    turn_file = Path(os.environ["ETL_TEST_RUN_DIR"]) / f"{NAME}-{postgres_major}.lock"
    with open(turn_file, "w") as turn, psycopg.connect(postgres_url, autocommit=True) as server:
        fcntl.flock(turn, fcntl.LOCK_EX)
        found = server.execute("select 1 from pg_database where datname = %s", [NAME]).fetchone()
        if found is None:
            # Renamed when it is whole: nights that failed must not pass for the account.
            building = f"{NAME}_new"
            names = {"new": sql.Identifier(building), "name": sql.Identifier(NAME)}
            server.execute(sql.SQL("drop database if exists {new} with (force)").format(**names))
            server.execute(
                sql.SQL("create database {new} template {template}").format(
                    **names, template=sql.Identifier(template_database)
                )
            )
            for lived in ACCOUNTS.values():
                load_account(_at(postgres_url, building), lived)
            for statement in (
                "alter database {new} set default_transaction_read_only = on",
                "alter database {new} rename to {name}",
            ):
                server.execute(sql.SQL(statement).format(**names))
    return _at(postgres_url, NAME)


def _at(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))
