"""Databases on the test server: their URLs, copies of a template, and those that tests share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql


def with_database(url: str, database: str) -> str:
    """Return ``url`` with another database's name."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def copy_database(connection: psycopg.Connection[Any], name: str, template: str) -> None:
    """Create the database ``name`` from one to which nobody is connected.

    Its files are copied: a third less work than the pages in the WAL, where nothing is synced.
    """
    connection.execute(
        sql.SQL("create database {} template {} strategy file_copy").format(
            sql.Identifier(name), sql.Identifier(template)
        )
    )


def made_once(
    server_url: str, name: str, template: str, fill: Callable[[str], None], *, major: str
) -> str:
    """The URL of the database ``name``, made in the whole test run by whoever asks first.

    The other workers wait for it.  Nobody is connected to it then, so that it can be copied.
    ``fill`` gets the URL of a copy of ``template``, and leaves no connection; ``major`` names the
    server among those of the test run.
    """
    building = f"{name}_new"
    names = {"new": sql.Identifier(building), "name": sql.Identifier(name)}
    turn_file = Path(os.environ["ETL_TEST_RUN_DIR"]) / f"{name}-{major}.lock"
    with (
        open(turn_file, "w") as turn,
        closing(psycopg.connect(server_url, autocommit=True)) as server,
    ):
        fcntl.flock(turn, fcntl.LOCK_EX)
        found = server.execute("select 1 from pg_database where datname = %s", [name]).fetchone()
        if found is None:
            # Renamed when it is whole: one whose filling failed must not pass for it.
            server.execute(sql.SQL("drop database if exists {new} with (force)").format(**names))
            copy_database(server, building, template)
            fill(with_database(server_url, building))
            server.execute(sql.SQL("alter database {new} rename to {name}").format(**names))
    return with_database(server_url, name)
