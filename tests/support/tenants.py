"""Many accounts at one simulated service, their ``accounts.toml``, and the job that reads them."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from etl.simulator import Account, Partner, SimulatorServer, generate_account
from etl.simulator.faults import Fault, RequestInfo
from etl.simulator.message import HttpReply
from tests.support import forked
from tests.support.job import Ended, ended

FIRST_PARTNER = 1_001


@dataclass
class Tenants:
    """Accounts ``a01``, ``a02``, …, of partners 1001, 1002, …"""

    server: SimulatorServer
    accounts: list[Account]
    folder: Path
    database_url: str
    faults: dict[int, str] = field(default_factory=dict)
    """By partner id: the fault that each of its lists gets."""
    held: dict[int, tuple[int, threading.Event]] = field(default_factory=dict)
    """By partner id: after so many lists, the next one is answered when the event is set."""
    here: threading.local = field(default_factory=threading.local)
    lists: Counter[int] = field(default_factory=Counter)
    """Lists that each partner has been asked for."""
    at_once: int = 0
    """The most requests that were in flight at a time."""

    @property
    def names(self) -> list[str]:
        return [f"a{number:02}" for number in range(1, len(self.accounts) + 1)]

    def write_file(self, extra: Mapping[str, str] | None = None) -> None:
        """``accounts.toml``; ``extra`` are lines of TOML by the name of an account."""
        tables = [
            f"[accounts.{name}]\npartner_id = {account.partner_id}\n"
            f'admin_secret = {{ env = "SECRET_{name}" }}\n{(extra or {}).get(name, "")}\n'
            for name, account in zip(self.names, self.accounts, strict=True)
        ]
        self.file.write_text("\n".join(tables))
        self.file.chmod(0o644)

    @property
    def file(self) -> Path:
        return self.folder / "accounts.toml"

    def environment(self, **variables: str) -> dict[str, str]:
        return {
            "KALTURA_SERVICE_URL": self.server.url,
            "DATABASE_URL": self.database_url,
            "ETL_ACCOUNTS": str(self.file),
            "ETL_RETRY_ATTEMPTS": "1",
            **{f"SECRET_{name}": secret(name) for name in self.names},
            **variables,
        }

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """A call of the program as a process of its own."""
        own = forked.environment(**self.environment(**variables))
        return forked.start(*arguments, env=own, cwd=self.folder)

    def call(self, *arguments: str, **variables: str) -> Ended:
        return ended(self.start(*arguments, **variables))

    def query(self, statement: str) -> list[dict[str, Any]]:
        with psycopg.connect(
            self.database_url, autocommit=True, row_factory=dict_row
        ) as connection:
            return connection.execute(statement.encode()).fetchall()

    def rows(self, schema: str = "kaltura") -> dict[int, set[str]]:
        """The ids of the tokens that are known as listed, by partner id."""
        found: dict[int, set[str]] = {}
        for row in self.query(f"select * from {schema}.upload_token where is_listed"):  # noqa: S608
            found.setdefault(row["partner_id"], set()).add(row["token_id"])
        return found

    def truth(self, *without: int) -> dict[int, set[str]]:
        """The ids that the service lists, by partner id."""
        return {
            account.partner_id: {token.id for token in account.line}
            for account in self.accounts
            if account.partner_id not in without
        }

    def partner(self, name: str) -> int:
        return FIRST_PARTNER - 1 + int(name[1:])

    def _decide(self, info: RequestInfo) -> Fault | None:
        if info.action != "list":
            return None
        partner_id = _partner_of(str(info.params.get("ks", "")))
        self.lists[partner_id] += 1
        answered, released = self.held.get(partner_id, (0, None))
        if released is not None and self.lists[partner_id] == answered + 1:
            self.here.released = released  # waited for in take_time, which holds no lock
        kind = self.faults.get(partner_id)
        return None if kind is None else Fault(kind)


def secret(name: str) -> str:
    return f"{name}secret".rjust(32, "0")


def _partner_of(ks: str) -> int:
    """The partner of a session that was made with an admin secret; 0 if it is none."""
    version, _, rest = base64.urlsafe_b64decode(ks[:64]).partition(b"|")
    return int(rest.partition(b"|")[0]) if version == b"v2" else 0


@contextmanager
def tenants(
    count: int, database_url: str, folder: Path, *, tokens: int = 30, latency_seconds: float = 0
) -> Iterator[Tenants]:
    """So many accounts of so many tokens each."""
    accounts = [
        generate_account(tokens, seed=number, partner_id=FIRST_PARTNER + number)
        for number in range(count)
    ]
    first, *others = [
        Partner(account, secret(f"a{number:02}")) for number, account in enumerate(accounts, 1)
    ]
    with SimulatorServer(
        first.account,
        admin_secret=first.admin_secret,
        other_partners=others,
        latency_seconds=latency_seconds,
    ) as server:
        made = Tenants(server, accounts, folder, database_url)
        made.write_file()
        server.faults.decide_by = made._decide
        _count_in_flight(made)
        yield made


def _count_in_flight(made: Tenants) -> None:
    service, lock = made.server.service, threading.Lock()
    take_time, here, nothing_to_wait_for = service.take_time, 0, threading.Event()
    nothing_to_wait_for.set()

    def counted(reply: HttpReply, closed: threading.Event) -> None:
        nonlocal here
        with lock:
            here += 1
            made.at_once = max(made.at_once, here)
        try:
            made.here.__dict__.pop("released", nothing_to_wait_for).wait(600)
            take_time(reply, closed)
        finally:
            with lock:
                here -= 1

    service.take_time = counted  # type: ignore[method-assign]
