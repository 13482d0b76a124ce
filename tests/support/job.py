"""What the tests of whole runs share: a job in this process or its own, and a model of the truth.

``Model`` is a second, plain implementation of what DESIGN section 4 calls a version.  It knows
nothing of pages, staging or SQL: it gets what the service lists at the end of each night, and says
what the warehouse must then hold, column by column.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.options import SyncOptions
from etl.run.sync import RunReport, sync_full
from etl.settings.table import load_settings
from etl.simulator import SimulatorServer

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT_102 = ROOT / "tests" / "conformance" / "data" / "account-102.json.gz"
REPLACEMENT = "\ufffd"
TEXTS = ("user_id", "file_name", "attached_object_type", "attached_object_id", "upload_url")
VALUES = (
    *("user_id", "status", "file_name", "file_size_bytes", "uploaded_size_bytes", "created_at"),
    *("updated_at", "attached_object_type", "attached_object_id", "auto_finalize", "upload_url"),
    "extra",
)
"""The columns of a token that the service tells, but its id."""
VOLATILE = ("auto_finalize", "upload_url")
KEPT = ("user_id", *VOLATILE)
VERSION = ("is_listed", "version", "change_kind", "changed_columns")
KEYS_WITH_A_COLUMN = {
    "userId": "user_id",
    "status": "status",
    "fileName": "file_name",
    "fileSize": "file_size_bytes",
    "uploadedFileSize": "uploaded_size_bytes",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "attachedObjectType": "attached_object_type",
    "attachedObjectId": "attached_object_id",
    "autoFinalize": "auto_finalize",
    "uploadUrl": "upload_url",
}
NOT_EXTRA = {*KEYS_WITH_A_COLUMN, "id", "partnerId", "objectType"}


def columns_of(fields: dict[str, Any]) -> dict[str, Any]:
    """What a token's JSON object must become, by the rules of DESIGN and nothing of the program."""
    row: dict[str, Any] = dict.fromkeys(VALUES)
    for key, column in KEYS_WITH_A_COLUMN.items():
        value = fields.get(key)
        if value is None:
            continue
        if column in TEXTS:
            row[column] = "".join(
                REPLACEMENT if char == "\0" or "\ud800" <= char <= "\udfff" else char
                for char in str(value)
            )
        elif column.endswith("_bytes"):
            row[column] = int(value)
        elif column.endswith("_at"):
            row[column] = datetime.fromtimestamp(value, UTC)
        else:
            row[column] = value
    extra = {key: value for key, value in fields.items() if key not in NOT_EXTRA}
    row["extra"] = extra or None
    return row


@dataclass
class Model:
    """What the warehouse must hold after each night."""

    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """For each token its versions: the values, and ``VERSION`` (changed_columns sorted)."""

    def night(self, listed: Iterable[dict[str, Any]]) -> Counter[str]:
        """The service lists these at the end of a quiet night; returns what was published."""
        kinds: Counter[str] = Counter()
        here = {fields["id"]: columns_of(fields) for fields in listed}
        for token_id, row in here.items():
            versions = self.versions.setdefault(token_id, [])
            kind = self._take(versions, row)
            kinds[kind] += 1
        for token_id, versions in self.versions.items():
            if token_id not in here and versions[-1]["is_listed"]:
                versions.append(
                    versions[-1]
                    | {
                        "is_listed": False,
                        "version": len(versions) + 1,
                        "change_kind": "absent",
                        "changed_columns": ["is_listed"],
                    }
                )
                kinds["absent"] += 1
        return kinds

    @staticmethod
    def _take(versions: list[dict[str, Any]], row: dict[str, Any]) -> str:
        if not versions:
            first = {"is_listed": True, "version": 1, "change_kind": "first_seen"}
            versions.append(row | first | {"changed_columns": None})
            return "first_seen"
        known = versions[-1]
        row = row | {name: known[name] for name in KEPT if row[name] is None}
        differing = [name for name in VALUES if row[name] != known[name]]
        reasons = [name for name in differing if name not in VOLATILE]
        if known["is_listed"] and not reasons:
            return "unchanged"
        kind = "changed" if known["is_listed"] else "relisted"
        if kind == "relisted":
            reasons.append("is_listed")
        versions.append(
            row
            | {
                "is_listed": True,
                "version": len(versions) + 1,
                "change_kind": kind,
                "changed_columns": sorted(reasons),
            }
        )
        return kind

    def current(self) -> dict[str, dict[str, Any]]:
        """The latest version of each token."""
        return {token_id: versions[-1] for token_id, versions in self.versions.items()}

    def superseded(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The earlier versions by id and number."""
        return {
            (token_id, version["version"]): version
            for token_id, versions in self.versions.items()
            for version in versions[:-1]
        }


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
        settings = load_settings(environment=self.environment(**variables))
        stop = Stop()
        try:
            return sync_full(settings, options or SyncOptions(), stop=stop, progress=NoProgress())
        finally:
            stop.close()

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """``kaltura-etl sync --json`` as a process of its own."""
        return self.start_command("sync", "--json", *arguments, **variables)

    def start_command(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Any command as a process of its own."""
        environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-m", "etl", *arguments],
            env=environment | self.environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, **variables: str) -> Ended:
        """Such a process, waited for."""
        return ended(self.start(*arguments, **variables))

    def call_command(self, *arguments: str, **variables: str) -> Ended:
        """Such a process of any command, waited for."""
        return ended(self.start_command(*arguments, **variables))

    # --- what is in the warehouse ----------------------------------------------------------------

    def query(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Rows as dicts, in a transaction of their own."""
        with psycopg.connect(
            self.database_url, autocommit=True, row_factory=dict_row, prepare_threshold=None
        ) as connection:
            cursor = connection.execute(statement, values)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def current(self) -> dict[str, dict[str, Any]]:
        """``upload_token`` by id, as the model has it."""
        return {row["token_id"]: _as_model(row) for row in self._versions("upload_token")}

    def superseded(self) -> dict[tuple[str, int], dict[str, Any]]:
        """``upload_token_superseded`` by id and version, as the model has it."""
        rows = self._versions("upload_token_superseded")
        return {(row["token_id"], row["version"]): _as_model(row) for row in rows}

    def everything(self) -> tuple[Any, ...]:
        """Both tables without stamps, run ids and times of observation: equal if runs are."""
        return self.current(), self.superseded()

    def _versions(self, table: str) -> list[dict[str, Any]]:
        return self.query(
            f"select token_id, {', '.join((*VALUES, *VERSION))} from kaltura.{table} "  # noqa: S608
            "where partner_id = %s",
            self.partner_id,
        )

    def runs(self) -> list[dict[str, Any]]:
        """The ledger, oldest first."""
        return self.query(
            "select *, coverage::text as certificate from kaltura.sync_run "
            "where partner_id = %s order by run_id",
            self.partner_id,
        )

    def last_run(self) -> dict[str, Any]:
        return self.runs()[-1]

    def rejected(self, run_id: int) -> list[dict[str, Any]]:
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


def listed(server: SimulatorServer) -> list[dict[str, Any]]:
    """What the service lists now, straight from the account."""
    with server.account.lock:
        return [server.account.fields(token) for token in server.account.line]


def requests_of(server: SimulatorServer, since: int = 0) -> int:
    """Lists that were asked for, the look-ups by id among them."""
    return sum(record.action == "list" for record in list(server.service.log)[since:])


def wait_until(condition: Any, seconds: float = 20) -> None:
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


def tell(figures: Mapping[str, object]) -> None:
    """Put figures into the test's output (``pytest -rP`` shows it)."""
    sys.stdout.write(f"{json.dumps(figures, sort_keys=True)}\n")


def assert_same(found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Two dicts of rows are equal; a few of the differences are shown if they are not."""
    if found == expected:
        return
    lost, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    differing = {
        key: {
            name: (found[key].get(name), value)
            for name, value in expected[key].items()
            if found[key].get(name) != value
        }
        for key in expected.keys() & found.keys()
        if found[key] != expected[key]
    }
    raise AssertionError(
        f"lost {len(lost)}: {sorted(lost)[:3]}; not expected {len(extra)}: {sorted(extra)[:3]}; "
        f"differing (found, expected) {len(differing)}: {dict(list(differing.items())[:3])}"
    )


def _as_model(row: dict[str, Any]) -> dict[str, Any]:
    values = {name: row[name] for name in (*VALUES, *VERSION)}
    if values["changed_columns"] is not None:
        values["changed_columns"] = sorted(values["changed_columns"])
    return values
