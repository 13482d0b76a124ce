"""A server that a test may stop, and a migrated database on it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest

from etl.warehouse.schema.revision import migrate
from tests.support.own_server import ANYBODY, OwnServer, own_server

TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def shared_server() -> Iterator[OwnServer]:
    """One for these tests: 4 s."""
    with own_server() as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"create database {TEMPLATE}".encode())
            connection.execute(f"create role {ANYBODY}".encode())
        migrate(server.url(TEMPLATE))
        yield server


@pytest.fixture
def server(shared_server: OwnServer) -> OwnServer:
    """It runs when the test begins."""
    with psycopg.connect(shared_server.url(), autocommit=True) as connection:
        connection.execute("checkpoint")
    return shared_server


@pytest.fixture
def own_url(server: OwnServer) -> str:
    """The URL of a migrated database of the test's own; it goes with the server."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"create database {name} template {TEMPLATE}".encode())
    return server.url(name)
