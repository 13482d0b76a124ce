"""One real Postgres for the whole test run, and a migrated database of its own for each test.

Fixtures (all databases are on a server with fsync off, gone after the run):

``database_url``        a migrated database (schema ``kaltura``), a copy of a template: 20 ms
``empty_database_url``  a database with nothing in it
``postgres_url``        the server itself, for tests that create roles or databases of their own
``pgbouncer_program``   the path of PgBouncer (mark the test ``pgbouncer``)
``chromium_program``    the path of Chromium (mark the test ``chromium``)

Servers: tests run on the embedded Postgres.  A test marked ``postgres15`` runs twice, on the
embedded one and on Debian's PostgreSQL 15; ``ETL_TEST_POSTGRES=15`` runs all of them on that one.
Where PostgreSQL 15, PgBouncer or Chromium is not installed, the tests that need it are left out,
and a line says so; with ``ETL_TEST_SERVERS=all`` (CI) it is an error instead.  So are those marked
``citus``, without a database in ``ETL_TEST_DATABASE_URL`` (never an error: Debian has no Citus).
"""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import psycopg
import pytest
from psycopg import sql

from tests.support import forked
from tests.support.databases import copy_database, made_once, with_database
from tests.support.environment import quick_folder, scrub_environment
from tests.support.portable import watch

SCHEMA = "kaltura"
TEMPLATE = "template_kaltura"
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
NEEDS_POSTGRES_15 = "PostgreSQL 15 (Debian: postgresql-15)"
NEEDS_PGBOUNCER = "PgBouncer (Debian: pgbouncer)"
NEEDS_CHROMIUM = "Chromium (Debian: chromium)"
RUN_DIR = "ETL_TEST_RUN_DIR"  # set by the first process, read by xdist's workers
NEEDS_CITUS = "the coordinator of a Citus cluster in ETL_TEST_DATABASE_URL"
LEFT_OUT: pytest.StashKey[dict[str, int]] = pytest.StashKey()


def _chosen_postgres() -> str:
    return os.environ.get("ETL_TEST_POSTGRES", "embedded")


def _pgbouncer() -> str | None:
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


def _missing_servers() -> list[str]:
    missing = [] if (POSTGRES_15 / "postgres").exists() else [NEEDS_POSTGRES_15]
    missing += [] if _pgbouncer() else [NEEDS_PGBOUNCER]
    return missing + ([] if shutil.which("chromium") else [NEEDS_CHROMIUM])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "postgres15: runs on Debian's PostgreSQL 15 as well")
    config.addinivalue_line("markers", "pgbouncer: needs PgBouncer")
    config.addinivalue_line("markers", "chromium: needs Chromium")
    config.addinivalue_line("markers", "citus: needs a Citus cluster")
    config.stash[LEFT_OUT] = {}
    # Collecting the tests makes millions of objects and no garbage, as importing the program does.
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
    scrub_environment()
    if _is_worker(config):
        return
    if os.environ.get("ETL_TEST_SERVERS") == "all" and (missing := _missing_servers()):
        raise pytest.UsageError(f"ETL_TEST_SERVERS=all, but not installed: {', '.join(missing)}")
    # As root the server runs as another user, who cannot pass through pytest's own folders.
    os.environ[RUN_DIR] = tempfile.mkdtemp(prefix="kaltura-etl-tests-", dir=quick_folder())
    Path(os.environ[RUN_DIR]).chmod(0o711)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_worker(config) and RUN_DIR in os.environ:
        folder = Path(os.environ.pop(RUN_DIR))
        deadline = time.monotonic() + 20  # the servers stop a moment after their last user
        while list(folder.glob("*/server/data/postmaster.pid")) and time.monotonic() < deadline:
            time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "postgres_major" in metafunc.fixturenames:
        chosen = _chosen_postgres()
        majors = [chosen]
        if metafunc.definition.get_closest_marker("postgres15") and chosen == "embedded":
            majors.append("15")
        metafunc.parametrize("postgres_major", majors, scope="session", indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose server is not installed; the summary says so."""
    missing = _missing_servers()
    missing += [] if os.environ.get("ETL_TEST_DATABASE_URL") else [NEEDS_CITUS]
    kept, left_out = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        on_15 = callspec is not None and callspec.params.get("postgres_major") == "15"
        needs = [NEEDS_POSTGRES_15] if on_15 else []
        needs += [NEEDS_PGBOUNCER] if item.get_closest_marker("pgbouncer") else []
        needs += [NEEDS_CHROMIUM] if item.get_closest_marker("chromium") else []
        needs += [NEEDS_CITUS] if item.get_closest_marker("citus") else []
        unmet = [need for need in needs if need in missing]
        if unmet:
            left_out.append(item)
            counts = config.stash[LEFT_OUT]
            counts[unmet[0]] = counts.get(unmet[0], 0) + 1
        else:
            kept.append(item)
    if left_out:
        items[:] = kept
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """The tests live as long as the run: the collector need not look at them again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _is_worker(session.config):
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT]  # type: ignore[attr-defined]


class _Node(Protocol):
    """A worker of pytest-xdist, which has no types."""

    config: pytest.Config


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: _Node) -> None:
    """Take over what a worker left out; each worker collects all tests, so each says the same."""
    told: dict[str, dict[str, int]] = getattr(node, "workeroutput", {})
    node.config.stash[LEFT_OUT].update(told.get("left_out", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for need, count in config.stash[LEFT_OUT].items():
        terminalreporter.write_line(f"left out: {count} tests, which need {need}")


@pytest.fixture(scope="session", autouse=True)
def portable_statements() -> Iterator[None]:
    """Every statement that the program sends in this process keeps ``tests.support.portable``."""
    with watch():
        yield


@pytest.fixture(scope="session")
def postgres_major(request: pytest.FixtureRequest) -> str:
    """``embedded``, or ``15`` for Debian's."""
    major: str = request.param
    return major


@pytest.fixture(scope="session")
def postgres_url(postgres_major: str) -> Iterator[str]:
    """The URL of the run's server: one for all workers, as the program itself would share it."""
    from etl.embedded.server import embedded_server

    folder = Path(os.environ[RUN_DIR]) / postgres_major
    with pytest.MonkeyPatch.context() as patch:
        if postgres_major == "15":
            patch.setenv("PG_BIN", str(POSTGRES_15))
        running = embedded_server(folder, fast=True)
        url = running.__enter__()
    try:
        yield url
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def template_database(postgres_url: str, postgres_major: str) -> str:
    """The name of a migrated database without connections, made once in the whole run."""
    from etl.warehouse.schema.revision import migrate

    def fill(url: str) -> None:
        migrate(url, SCHEMA)

    made_once(postgres_url, TEMPLATE, "template1", fill, major=postgres_major)
    forked.rehearse_in(postgres_url, TEMPLATE)
    return TEMPLATE


@pytest.fixture(scope="session")
def server_session(postgres_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A session on the run's server that makes and drops the databases of this worker's tests.

    A new one costs as much processor time as the copy of a database that it is to make.
    """
    with _connect(postgres_url) as connection:
        yield connection


@pytest.fixture
def database_url(
    postgres_url: str,
    template_database: str,
    server_session: psycopg.Connection[tuple[object, ...]],
) -> Iterator[str]:
    """The URL of a migrated database of this test's own; dropped afterwards."""
    yield from _own_database(postgres_url, template_database, server_session)


@pytest.fixture
def empty_database_url(
    postgres_url: str, server_session: psycopg.Connection[tuple[object, ...]]
) -> Iterator[str]:
    """The URL of an empty database of this test's own; dropped afterwards."""
    yield from _own_database(postgres_url, "template1", server_session)


@pytest.fixture
def private_folder() -> Iterator[Path]:
    """A folder that the server's user can reach also when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="kaltura-etl-test-", dir=quick_folder()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pgbouncer_program() -> str:
    """The path of PgBouncer; tests that use it are marked ``pgbouncer``."""
    program = _pgbouncer()
    assert program is not None, "mark the test with pgbouncer: it is left out where there is none"
    return program


@pytest.fixture(scope="session")
def chromium_program() -> str:
    """The path of Chromium; tests that use it are marked ``chromium``."""
    program = shutil.which("chromium")
    assert program is not None, "mark the test with chromium: it is left out where there is none"
    return program


def _connect(url: str) -> closing[psycopg.Connection[tuple[object, ...]]]:
    return closing(psycopg.connect(url, autocommit=True))


def _own_database(
    server_url: str, template: str, connection: psycopg.Connection[tuple[object, ...]]
) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    copy_database(connection, name, template)
    yield with_database(server_url, name)
    _drop_database(connection, name)


def _drop_database(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    # A test may leave connections behind, of processes that it killed for one.
    connection.execute(
        sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
    )
