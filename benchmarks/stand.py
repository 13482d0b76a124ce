"""What every benchmark uses: a simulated account, an embedded Postgres, the program itself.

Each is a process of its own, as in production, so that none of them shares an interpreter lock
or an allocator with what is measured.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

PARTNER_ID = 102
ADMIN_SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of the simulator alone
SCHEMA = "kaltura"
TEMPLATE = "bench_template"
MUTATIONS_A_REQUEST = 2_000


@dataclass(frozen=True, slots=True)
class Simulator:
    """A running ``kaltura-etl simulate``."""

    url: str

    def control(self, name: str, body: Mapping[str, Any] | None = None) -> Any:
        """GET (or POST, with a body) below ``/simulator/``; raises RuntimeError if refused."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)
        method = "GET" if body is None else "POST"
        connection.request(method, f"/simulator/{name}", json.dumps(body) if body else None)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        if reply.status != 200:
            raise RuntimeError(f"the simulator refused {name}: {text[:200]!r}")
        return json.loads(text)

    def change_some(self, share: float, seed: int) -> dict[str, int]:
        """Change ``share`` of the tokens, spread evenly over the account's history.

        Of ten events six are changes of a token, two are new tokens and two are deletions.  Real
        changes gather among the newest tokens; spread out they are the harder case.
        """
        rng = random.Random(seed)
        ids = [row["id"] for row in self.control("list")["objects"]]
        chosen = rng.sample(ids, round(len(ids) * share))
        counts = {"change": 0, "insert": 0, "delete": 0}
        operations: list[dict[str, Any]] = []
        for number, token_id in enumerate(chosen):
            kind = ("change", "insert", "change", "delete", "change")[number % 5]
            counts[kind] += 1
            if kind == "change":
                entry = f"0_{rng.getrandbits(40):010x}"
                fields = {"status": 3, "attachedObjectId": entry, "attachedObjectType": "entry"}
                operations.append({"op": "change", "id": token_id, "fields": fields})
            elif kind == "insert":
                new = {"id": f"0_{rng.getrandbits(128):032x}", "status": 0, "fileName": "new.mp4"}
                operations.append({"op": "insert", "token": new})
            else:
                operations.append({"op": "delete", "id": token_id})
        for begin in range(0, len(operations), MUTATIONS_A_REQUEST):
            done = self.control("mutate", {"ops": operations[begin : begin + MUTATIONS_A_REQUEST]})
            if not all(done["done"]):
                raise RuntimeError("the simulator did not do every change")
        return counts


@contextmanager
def simulator(tokens: int, *, seed: int = 1) -> Iterator[Simulator]:
    """Serve a generated account of ``tokens`` tokens."""
    command = [*program(), "simulate", "--tokens", str(tokens), "--seed", str(seed)]
    command += ["--partner-id", str(PARTNER_ID), "--admin-secret", ADMIN_SECRET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment()) as server:
        try:
            assert server.stdout is not None  # noqa: S101
            line = server.stdout.readline()
            if not line.startswith("listening on "):
                raise RuntimeError(f"the simulator did not start: {line!r}")
            yield Simulator(line.removeprefix("listening on ").strip())
        finally:
            server.terminate()


@dataclass(frozen=True, slots=True)
class Postgres:
    """An embedded server with the product's (durable) settings; ``url`` is its first database."""

    url: str

    def url_of(self, database: str) -> str:
        return self.url.replace("/postgres?", f"/{database}?")

    def run(self, statement: sql.Composable | str, *, database: str = "postgres") -> Any:
        """One statement outside a transaction; the first value of its result, if it has one."""
        with psycopg.connect(self.url_of(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            row = cursor.fetchone() if cursor.description else None
            return None if row is None else row[0]

    def make_template(self) -> None:
        """A migrated database, of which each first load gets a copy."""
        self.run(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
        subprocess.run(
            [*program(), "migrate"],
            env=_environment(DATABASE_URL=self.url_of(TEMPLATE)),
            check=True,
            capture_output=True,
        )

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """A copy of the template, for as long as the context lasts."""
        quoted = sql.Identifier(name)
        self.run(
            # The file copy does not fill shared buffers, as a database of another day would not.
            sql.SQL("create database {} template {} strategy file_copy").format(
                quoted, sql.Identifier(TEMPLATE)
            )
        )
        try:
            yield self.url_of(name)
        finally:
            self.run(sql.SQL("drop database {} with (force)").format(quoted))

    def rest(self, database: str) -> None:
        """What a server does by itself between two nights: vacuum, analyze, checkpoint."""
        for table in ("upload_token", "upload_token_superseded", "sync_run", "sync_page"):
            self.run(
                sql.SQL("vacuum (analyze) {}").format(sql.Identifier(SCHEMA, table)),
                database=database,
            )
        self.run("checkpoint")

    def wal_position(self) -> int:
        """Bytes of WAL that the server has written."""
        return int(self.run("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8"))


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    from etl.embedded.server import embedded_server

    with embedded_server(folder) as url:
        yield Postgres(url)


@dataclass(frozen=True, slots=True)
class Sync:
    """One ``kaltura-etl sync``, seen from outside."""

    seconds: float
    """Wall time of the whole process, from fork to exit."""
    cpu_seconds: float
    peak_rss_bytes: int
    wal_bytes: int
    report: dict[str, Any]
    """What ``sync --json`` printed."""
    stages: dict[str, float]
    """Seconds by stage, if it was run with the stop watch."""


def sync(
    service: Simulator,
    server: Postgres,
    database: str,
    *,
    options: tuple[str, ...] = (),
    stop_watch: Path | None = None,
) -> Sync:
    """Run the program once.

    With ``stop_watch`` (a file) it also reports where its time went, which slows it down a little:
    do not compare such a run.
    """
    command = [*program(stop_watch=stop_watch is not None), "sync", "--json", *options]
    environment = _environment(
        DATABASE_URL=server.url_of(database),
        KALTURA_SERVICE_URL=service.url,
        KALTURA_PARTNER_ID=str(PARTNER_ID),
        KALTURA_ADMIN_SECRET=ADMIN_SECRET,
        STOP_WATCH_FILE=str(stop_watch or ""),
    )
    wal_before = server.wal_position()
    peak = [0]
    began = time.perf_counter()
    environment["STOP_WATCH_BEGAN"] = repr(time.time())
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        watching = threading.Thread(target=_watch_memory, args=(process.pid, peak), daemon=True)
        watching.start()
        printed, said = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    wal_after = server.wal_position()
    if process.returncode != 0:
        raise RuntimeError(f"sync ended with {process.returncode}: {said[-2000:].decode()}")
    return Sync(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_rss_bytes=peak[0],
        wal_bytes=wal_after - wal_before,
        report=json.loads(printed),
        stages=json.loads(stop_watch.read_text()) if stop_watch else {},
    )


def _watch_memory(pid: int, peak: list[int]) -> None:
    """Note the high-water mark of a process until it ends; 0 where there is no /proc.

    ``ru_maxrss`` would not do: it begins with what the process that forked was using.
    """
    status = Path(f"/proc/{pid}/status")
    while True:
        try:
            marks = [line for line in status.read_text().splitlines() if line[:6] == "VmHWM:"]
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return
        if not marks:  # it has ended, and was not waited for yet
            return
        if b"sync" in command.split(b"\0"):  # before its exec it is a copy of this process
            peak[0] = max(peak[0], int(marks[0].split()[1]) * 1024)
        time.sleep(0.02)


def write_bytecode() -> None:
    """Compile what a sync imports: an installer may have left that to the first start."""
    modules = "benchmarks.stop_watch, etl.cli.sync, etl.cli.database, etl.cli.tables, etl.run.sync"
    command = [sys.executable, "-c", f"import {modules}, etl.kaltura.service, etl.process.progress"]
    subprocess.run(command, env=_environment(), check=True)


def program(*, stop_watch: bool = False) -> list[str]:
    """The console script of this environment, or the same program under the stop watch."""
    if stop_watch:
        return [sys.executable, "-m", "benchmarks.stop_watch"]
    script = Path(sys.executable).with_name("kaltura-etl")
    return [str(script)] if script.exists() else [sys.executable, "-m", "etl"]


def _environment(**more: str) -> dict[str, str]:
    """The environment without settings of the program, libpq or Python.

    They would change what is measured: with PYTHONDONTWRITEBYTECODE, every start compiles every
    module again.
    """
    ours = ("KALTURA_", "ETL_", "PG", "PYTHON", "DATABASE_URL", "VARIABLE_FILE")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | more
