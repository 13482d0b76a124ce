"""A job of one account, in this process or in one of its own, and what it left in the warehouse."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.plan import SyncOptions
from etl.run.report import RunReport
from etl.run.sync import sync
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer
from etl.simulator.faults import RequestInfo
from tests.support import forked
from tests.support.model import VALUES, VERSION, Row, as_model

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT_102 = ROOT / "tests" / "conformance" / "data" / "account-102.json.gz"


@dataclass
class Job:
    """The nightly job of one account: where it reads and where it writes."""

    url: str
    database_url: str
    partner_id: int
    admin_secret: str
    variables: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, server: SimulatorServer, database_url: str, **variables: str) -> Job:
        known = server.settings()
        return cls(
            known["url"], database_url, known["partner_id"], known["admin_secret"], variables
        )

    def environment(self, **variables: str) -> dict[str, str]:
        return {
            "KALTURA_SERVICE_URL": self.url,
            "KALTURA_PARTNER_ID": str(self.partner_id),
            "KALTURA_ADMIN_SECRET": self.admin_secret,
            "DATABASE_URL": self.database_url,
            **self.variables,
            **variables,
        }

    def run(self, *, options: SyncOptions | None = None, **variables: str) -> RunReport:
        """One run in this process; raises what it raises."""
        settings = load_settings(environment=self.environment(**variables)).checked()
        return sync(settings, options or SyncOptions(), stop=Stop(), progress=NoProgress())

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """``kaltura-etl sync --json`` as a process of its own."""
        return self.start_command("sync", "--json", *arguments, **variables)

    def start_command(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Any command as a process of its own."""
        return forked.start(*arguments, env=forked.environment(**self.environment(**variables)))

    def call(self, *arguments: str, **variables: str) -> Ended:
        """Such a process, waited for."""
        return ended(self.start(*arguments, **variables))

    def call_command(self, *arguments: str, **variables: str) -> Ended:
        """Such a process of any command, waited for."""
        return ended(self.start_command(*arguments, **variables))

    # --- what is in the warehouse ----------------------------------------------------------------

    def query(self, statement: str, *values: object) -> list[Row]:
        """Rows as dicts, in a transaction of their own."""
        with psycopg.connect(
            self.database_url, autocommit=True, row_factory=dict_row, prepare_threshold=None
        ) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def current(self) -> dict[str, Row]:
        """``upload_token`` by id, as the model has it."""
        return {row["token_id"]: as_model(row) for row in self._versions("upload_token")}

    def superseded(self) -> dict[tuple[str, int], Row]:
        """``upload_token_superseded`` by id and version, as the model has it."""
        rows = self._versions("upload_token_superseded")
        return {(row["token_id"], row["version"]): as_model(row) for row in rows}

    def everything(self) -> tuple[dict[str, Row], dict[tuple[str, int], Row]]:
        """Both tables without stamps, run ids and times of observation: equal if runs are."""
        return self.current(), self.superseded()

    def _versions(self, table: str) -> list[Row]:
        return self.query(
            f"select token_id, {', '.join((*VALUES, *VERSION))} from kaltura.{table} "  # noqa: S608
            "where partner_id = %s",
            self.partner_id,
        )

    def runs(self) -> list[Row]:
        """The ledger, oldest first."""
        return self.query(
            "select *, coverage::text as certificate from kaltura.sync_run "
            "where partner_id = %s order by run_id",
            self.partner_id,
        )

    def last_run(self) -> Row:
        return self.runs()[-1]

    def rejected(self, run_id: int) -> list[Row]:
        return self.query("select * from kaltura.rejected_row where run_id = %s", run_id)

    def writes(self) -> dict[str, dict[str, int]]:
        """Rows written to each table so far, and those dead in it, by the server's statistics."""
        rows = self.query(
            "select relname, n_tup_ins + n_tup_upd + n_tup_del as written, n_dead_tup as dead "
            "from pg_stat_user_tables where schemaname = 'kaltura'"
        )
        return {row.pop("relname"): row for row in rows}


@dataclass
class Ended:
    """A process that is over."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


def ended(process: subprocess.Popen[str], timeout: float = 120) -> Ended:
    """Wait for a process; it is killed if that takes too long."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Ended(process.returncode, out, err)


def listed(server: SimulatorServer) -> list[Row]:
    """What the service lists now, straight from the account."""
    with server.account.lock:
        return [server.account.fields(token) for token in server.account.line]


def requests_of(server: SimulatorServer, since: int = 0) -> int:
    """Lists that were asked for, the look-ups by id among them."""
    return sum(record.action == "list" for record in list(server.service.log)[since:])


@contextmanager
def held_after(server: SimulatorServer, lists: int) -> Iterator[None]:
    """The service answers so many lists, and the next one only when the block ends."""
    asked, released = 0, threading.Event()

    def hold(info: RequestInfo) -> None:
        nonlocal asked
        asked += info.action == "list"
        if asked > lists:
            released.wait(60)

    server.faults.decide_by = hold
    try:
        yield
    finally:
        released.set()
        server.faults.clear()


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Poll until ``condition()`` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@contextmanager
def killed_at_exit(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """No process outlives its test, a stopped one neither."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@contextmanager
def running(
    *arguments: str, env: Mapping[str, str], output: Path
) -> Iterator[subprocess.Popen[str]]:
    """``kaltura-etl ARGUMENTS``, whose output and errors go to a file, until the block ends."""
    with output.open("w") as file:
        started = forked.start(*arguments, env=env, stdout=file, stderr=subprocess.STDOUT)
        with killed_at_exit(started) as process:
            yield process


def tell(figures: Mapping[str, object]) -> None:
    """Put figures into the test's output (``pytest -rP`` shows it)."""
    sys.stdout.write(f"{json.dumps(figures, sort_keys=True)}\n")
