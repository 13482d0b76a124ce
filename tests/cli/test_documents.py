"""Every command that a document shows is run, as a reader would paste it.

The service is the simulator, which refuses what the service refuses; the warehouse is a database of
the test's own.  A command that fails, or a line for cron that prints anything, fails the test.
"""

from __future__ import annotations

import gzip
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from etl.simulator import (
    DEFAULT_ADMIN_SECRET,
    Account,
    Partner,
    SimulatorServer,
    generate_account,
)
from etl.simulator.client import SimulatorClient
from tests.support import forked
from tests.support.documents import BLOCK, ROOT, Block, Reader, blocks_of
from tests.support.job import Job
from tests.support.roles import as_role, own_database

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN = {
    "migrate --distributed": "needs Citus; ./dev test distributed runs it there",
    "migrate --repair --distributed": "likewise",
    "s3://backup": "needs an object store; tests/integration/archive has one",
    "--format parquet": "needs an extra; tests/lake has it",
    "--format delta": "likewise",
    "dbt ": "needs dbt; tests/dbt has it",
    "set day 2026": "a session in psql; tests/questions runs every query",
    "simulate --tokens 20000": "serves until it is stopped; below",
}
PROGRAM_LINE = re.compile(r"^(?:\$ )?(?:kaltura-etl|curl|\./dev) ", re.MULTILINE)
OWNER_URL = "postgresql://etl:...@db.example.com/warehouse?sslmode=verify-full&sslrootcert=system"
NEW_URL = "postgresql://etl:...@db.example.com/kaltura"
"""The server that an embedded warehouse moves to."""
SET_UP_BY_PAGE = ("README.md", "first-sync.md", "quickstart.md")
"""Others take an account for granted, and a warehouse with a run in it; archive.md only the first:
an archive begins with the first run."""
IN_EMPTY_WAREHOUSE = "replay /var/lib/kaltura-archive\n"
"""A replay needs a warehouse with nothing in it."""


def runnable(page: Path) -> list[Block]:
    """The blocks of a page that are run; ask.md's queries are run by tests/questions."""
    return [
        block
        for block in blocks_of(page)
        if not any(part in block.text for part in NOT_RUN)
        and not (page.name == "ask.md" and block.kind == "sql")
    ]


pages = pytest.mark.parametrize(
    "page", [page for page in PAGES if runnable(page)], ids=lambda page: page.name
)


def account() -> Account:
    """The one that the pages are read with; it is the same each time."""
    return generate_account(60, seed=8)


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    globex = Partner(generate_account(20, seed=9, partner_id=103))
    with SimulatorServer(account(), other_partners=[globex]) as running:
        yield running


@pytest.fixture(scope="module")
def synced_database(postgres_url: str, template_database: str) -> Iterator[str]:
    """The name of a database with one run of the account, to which nobody is connected."""
    with own_database(postgres_url, template_database) as url, SimulatorServer(account()) as server:
        Job.of(server, url).run()
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture
def warehouse_url(
    request: pytest.FixtureRequest, postgres_url: str, template_database: str, synced_database: str
) -> Iterator[str]:
    """What the page of this test takes for granted: a warehouse in use, unless it begins one."""
    callspec = getattr(request.node, "callspec", None)
    page = None if callspec is None else callspec.params.get("page")
    begins = page is None or page.name in (*SET_UP_BY_PAGE, "archive.md")
    with own_database(postgres_url, template_database if begins else synced_database) as url:
        yield url


@pytest.fixture(scope="module")
def program() -> str:
    """``kaltura-etl`` for shells."""
    return forked.shim()


@pytest.fixture
def reader(
    program: str,
    server: SimulatorServer,
    warehouse_url: str,
    clean_environment: dict[str, str],
    tmp_path: Path,
) -> Iterator[Reader]:
    """A reader with an account and a warehouse, whose roles go with the test."""
    names = {kind: f"{kind}_{secrets.token_hex(6)}" for kind in ("loader", "analyst", "anna")}
    known = server.settings()
    with SimulatorClient(server.url) as client:
        app_token = client.call(
            "appToken",
            "add",
            ks=client.start_session(known["admin_secret"]),
            appToken={"hashType": "SHA256", "sessionType": 2, "sessionUserId": "kaltura-etl"},
        )
    with psycopg.connect(warehouse_url, autocommit=True) as owner:
        replaced = {
            "https://www.kaltura.com": server.url,
            "partner=1234567 role=ROLE": "partner=102 role=5001",
            "=1234567": "=102",
            "KALTURA_APP_TOKEN_ID=0_abcdefgh": f"KALTURA_APP_TOKEN_ID={app_token['id']}",
            "KALTURA_APP_TOKEN=...": f"KALTURA_APP_TOKEN={app_token['token']}",
            OWNER_URL: warehouse_url,
            "postgresql://kaltura_loader:...@host/warehouse": as_role(
                warehouse_url, names["loader"]
            ),
            "kaltura_loader": names["loader"],
            "kaltura_analyst": names["analyst"],
            "role anna": f"role {names['anna']}",
            "on database warehouse": f"on database {owner.info.dbname}",
            "kaltura_demo": "kaltura",
            "/var/lib/kaltura-archive": str(tmp_path / "archive"),
            "/srv/reports": str(tmp_path),
            "300 1800 0": "0 0 0",
        }
        environment = clean_environment | {
            "DATABASE_URL": warehouse_url,
            "KALTURA_SERVICE_URL": server.url,
        }
        made = Reader(tmp_path / "home", program, environment, replaced)
        yield made
        limited = f"{names['analyst']}_emea"
        for name in (names["anna"], names["loader"], names["analyst"], limited):
            if owner.execute("select 1 from pg_roles where rolname = %s", [name]).fetchone():
                owner.execute(f"drop owned by {name}; drop role {name}")


@pages
def test_the_commands_of_a_page_work(
    page: Path, reader: Reader, server: SimulatorServer, empty_database_url: str
) -> None:
    _prepare(page, reader, server)
    reader.replaced[NEW_URL] = empty_database_url
    with _simulator_of(page, reader):
        for block in runnable(page):
            if "simulate --port" in block.text:
                continue  # runs already
            _before(block, reader)
            in_empty = IN_EMPTY_WAREHOUSE in block.text
            printed = reader.run(
                block,
                typed=f"{server.settings()['admin_secret']}\n",
                **({"DATABASE_URL": empty_database_url} if in_empty else {}),
            )
            if "appToken/action/add" in block.text:
                reader.remember_app_token(printed)
            # What a block exports is there in those after it: it is one shell for the reader.
            for name, value in re.findall(r"(\w+)=(\S+)", _exports(reader.fitted(block.text))):
                reader.environment[name] = value.replace("~", str(reader.home))


def _prepare(page: Path, reader: Reader, server: SimulatorServer) -> None:
    """What the page takes for granted: its files, and an account that has been set up."""
    known = server.settings()
    ids = [token.id for token in list(server.account.line)[:3]]
    (reader.checkout / "suspicious.txt").write_text("\n".join(ids))
    (reader.checkout / "report.tsv").write_text("".join(f"{each}\tname\n" for each in ids))
    (reader.home / ".local" / "share" / "kaltura-etl").mkdir(parents=True)
    if page.name in SET_UP_BY_PAGE:
        return
    own = (
        f"KALTURA_PARTNER_ID={known['partner_id']}\nKALTURA_ADMIN_SECRET={known['admin_secret']}\n"
    )
    file = reader.home / "account.env"
    file.write_text(own)
    file.chmod(0o600)
    reader.environment["VARIABLE_FILE"] = str(file)
    if page.name in ("accounts.md", "report.md"):
        _write_accounts(page.with_name("accounts.md"), reader, server)


def _write_accounts(page: Path, reader: Reader, server: SimulatorServer) -> None:
    """The page's ``accounts.toml``, with the accounts of the simulator in it."""
    found = re.search(r"^```toml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    app_token_id, app_token = (
        value.partition("=")[2]
        for name, value in reader.replaced.items()
        if name.startswith("KALTURA_APP_TOKEN")
    )
    text = found[1].replace("1234567", "102").replace("7654321", "103")
    text = text.replace("https://video.globex.example", server.url)
    (reader.checkout / "accounts.toml").write_text(text.replace("0_abcdefgh", app_token_id))
    (reader.checkout / "accounts.toml").chmod(0o644)
    reader.environment["ACME_APP_TOKEN"] = app_token
    secret = reader.checkout / "secrets" / "globex"
    secret.parent.mkdir()
    secret.write_text(f"{DEFAULT_ADMIN_SECRET}\n")
    secret.chmod(0o600)
    reader.run(Block("sh", "kaltura-etl migrate --schema globex", ""))


def _before(block: Block, reader: Reader) -> None:
    """What happens between two blocks of a page."""
    if "from erasure_key.csv" in block.text:
        # The backup that was restored is older than the erasure.
        emptied = "delete from erasure; delete from erasure_key"
        reader.run(Block("sh", f"kaltura-etl psql -q -c '{emptied}'", ""))
    if "erase --user-id" in block.text:
        users = "update upload_token set user_id = 'anna@example.edu', digest = null"
        reader.run(Block("sh", f'kaltura-etl psql -q -c "{users}"', ""))


def _exports(text: str) -> str:
    return " ".join(re.findall(r"^export (.*)$", text, re.MULTILINE))


@contextmanager
def _simulator_of(page: Path, reader: Reader) -> Iterator[None]:
    """The simulator that a page tells its reader to start in another terminal, if it does."""
    commands = [block.text for block in runnable(page) if "simulate --port 8080" in block.text]
    if not commands:
        yield
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    reader.replaced |= {"8080": port, "--tokens 20000": "--tokens 200"}
    arguments = shlex.split(reader.fitted(commands[0]))
    assert arguments[:2] == ["./dev", "run"]
    with forked.start(*arguments[2:], env=reader.environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"listening on http://127.0.0.1:{port}\n"
            yield
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def test_every_command_is_in_a_block_that_is_run() -> None:
    """Other kinds of blocks hold none: not those that are indented, nor what a command printed."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        outside = BLOCK.sub("", text)
        assert re.findall(r"^ {4}.*(?:kaltura-etl|curl|\./dev) .*$", outside, re.MULTILINE) == []
        kinds = {kind for kind, body in BLOCK.findall(text) if PROGRAM_LINE.search(body)}
        assert kinds <= {"sh", "bash", ""}, page.name  # bash: below; without: what is typed, cron


def test_the_completion_of_the_page_completes_commands(program: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    (line,) = (body for kind, body in BLOCK.findall(text) if kind == "bash")
    (tmp_path / "kaltura-etl").write_text(program)
    (tmp_path / "kaltura-etl").chmod(0o755)
    tried = f"""{line}
COMP_WORDS=(kaltura-etl back) COMP_CWORD=1
_kaltura_etl_completion kaltura-etl
echo "${{COMPREPLY[*]}}"
"""
    done = subprocess.run(
        ["bash", "-ec", tried],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "backfill\n"


def test_the_simulator_starts_as_its_page_says(tmp_path: Path) -> None:
    page = ROOT / "docs" / "reference" / "simulator.md"
    (block,) = (each for each in blocks_of(page) if "simulate --tokens 20000" in each.text)
    with gzip.open(ROOT / "tests" / "conformance" / "data" / "account-102.json.gz") as account:
        (tmp_path / "account-102.json").write_bytes(account.read())
    started = [
        forked.start(
            *shlex.split(line.replace("8080", "0"))[1:], env=forked.environment(), cwd=tmp_path
        )
        for line in block.text.splitlines()
    ]
    for process in started:
        with process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("listening on http://127.0.0.1:")
            process.send_signal(signal.SIGTERM)
        assert process.returncode == 0


def test_the_simulator_is_used_from_python_as_its_page_says() -> None:
    text = (ROOT / "docs" / "reference" / "simulator.md").read_text(encoding="utf-8")
    (code,) = (body for kind, body in BLOCK.findall(text) if kind == "python")
    names: dict[str, Any] = {}
    exec(code.replace("20_000", "200"), names)  # noqa: S102 - the page's own
    assert len(names["account"].listed_throughout(names["first"], names["account"].mark)) == 200


def test_what_is_not_run_is_there_and_has_a_reason() -> None:
    everything = "".join(block.text for page in PAGES for block in blocks_of(page))
    texts = everything + "".join(page.read_text(encoding="utf-8") for page in PAGES)

    assert [part for part in NOT_RUN if part not in texts] == []
    assert IN_EMPTY_WAREHOUSE in texts


def test_the_service_refuses_the_app_token_of_the_page_without_its_user(
    reader: Reader, server: SimulatorServer
) -> None:
    """So the test of the page would notice."""
    page = ROOT / "docs" / "howto" / "first-sync.md"
    (block,) = (each for each in blocks_of(page) if "appToken/action/add" in each.text)
    reader.replaced['"sessionUserId":"kaltura-etl",'] = ""
    printed = reader.run(block, typed=f"{server.settings()['admin_secret']}\n")

    assert '"code":"INVALID_FIELD_VALUE"' in printed
