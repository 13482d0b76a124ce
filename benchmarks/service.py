"""The simulated service of a benchmark, in a process of its own, and the days of its account."""

from __future__ import annotations

import http.client
import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from benchmarks.program import clean_environment, program

PARTNER_ID = 102
ADMIN_SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of the simulator alone
ACCOUNTS = ("plain", "hostile", "odd", "mixed")
CHANGED_SHARE = 0.01
FLIPPED_SHARE = 0.10
WITHOUT_USER_SHARE = 0.05
MUTATIONS_PER_REQUEST = 2_000


@dataclass(frozen=True, slots=True)
class Delay:
    """What a reply waits: milliseconds, and milliseconds for each of its rows."""

    milliseconds: float = 0.0
    per_row: float = 0.0


class _Listed(msgspec.Struct, rename="camel"):
    id: str
    user_id: str | None = None
    auto_finalize: bool | int | None = None


class _List(msgspec.Struct):
    objects: list[_Listed]


class _Truth(msgspec.Struct):
    throughout: list[tuple[str, int]]
    """Ids and createdAt of the tokens that were listed all through."""


@dataclass(frozen=True, slots=True)
class Simulator:
    """A running ``kaltura-etl simulate``."""

    url: str
    pid: int
    account: str

    def control(self, name: str, body: Mapping[str, Any] | None = None) -> Any:
        """GET (or POST, with a body) below ``/simulator/``; raises RuntimeError if refused."""
        return json.loads(self._request(name, body))

    def _request(self, name: str, body: Mapping[str, Any] | None = None) -> bytes:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=600)
        method, sent = ("GET", None) if body is None else ("POST", json.dumps(body))
        connection.request(method, f"/simulator/{name}", sent)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        if reply.status != 200:
            raise RuntimeError(f"the simulator refused {name}: {text[:200]!r}")
        return text

    def delay_replies(self, delay: Delay) -> None:
        given = {"latency_ms": delay.milliseconds, "row_latency_ms": delay.per_row}
        self.control("configure", given)

    # ---- the day between two nights -----------------------------------------------------------

    def pass_day(self, seed: int, *, first: bool = False, changes: bool = False) -> None:
        """What happens between two nights: with ``changes`` to 1 % of the tokens.

        Of an odd account one token in ten has its ``autoFinalize`` flipped each day, and on the
        ``first`` day so many users are deleted that one token in twenty loses its ``userId``.
        """
        rng = random.Random(seed)
        if self.account == "odd":
            listed = msgspec.json.decode(self._request("list"), type=_List).objects
            if first:
                self._mutate(_users_deleted(listed))
            self._mutate(_flips(listed, rng))
        if changes:
            ids = [token_id for token_id, _ in self._truth("truth")]
            self.change(rng.sample(ids, round(len(ids) * CHANGED_SHARE)), rng)

    def change(self, ids: Iterable[str], rng: random.Random) -> None:
        """A change of a token, a new one or a deletion for each of these ids of listed tokens."""
        self._mutate(_changes(ids, rng))

    def _mutate(self, operations: Iterable[dict[str, Any]]) -> None:
        waiting = list(operations)
        for begin in range(0, len(waiting), MUTATIONS_PER_REQUEST):
            done = self.control("mutate", {"ops": waiting[begin : begin + MUTATIONS_PER_REQUEST]})
            if not all(done["done"]):
                raise RuntimeError("the simulator did not make every change")

    # ---- what is true -------------------------------------------------------------------------

    def listed_ids(self) -> set[str]:
        return {token_id for token_id, _ in self._truth("truth")}

    def mark(self) -> int:
        return int(self.control("mark")["mark"])

    def listed_throughout(self, since: int) -> set[str]:
        """Ids of the tokens that have been listed at every moment since a mark."""
        return {token_id for token_id, _ in self._truth(f"truth?from_mark={since}")}

    def _truth(self, question: str) -> list[tuple[str, int]]:
        return msgspec.json.decode(self._request(question), type=_Truth).throughout


def _changes(ids: Iterable[str], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Of five events three are changes of a token, one is a new token and one a deletion.

    They are spread evenly: real changes gather among the newest tokens, which is easier.
    """
    for number, token_id in enumerate(ids):
        kind = ("change", "insert", "change", "delete", "change")[number % 5]
        if kind == "change":
            entry = f"0_{rng.getrandbits(40):010x}"
            fields = {"status": 3, "attachedObjectId": entry, "attachedObjectType": "entry"}
            yield {"op": "change", "id": token_id, "fields": fields}
        elif kind == "insert":
            new = {"id": f"0_{rng.getrandbits(128):032x}", "status": 0, "fileName": "new.mp4"}
            yield {"op": "insert", "token": new}
        else:
            yield {"op": "delete", "id": token_id}


def _flips(listed: list[_Listed], rng: random.Random) -> Iterator[dict[str, Any]]:
    for token in rng.sample(listed, round(len(listed) * FLIPPED_SHARE)):
        fields = {"autoFinalize": not token.auto_finalize}
        yield {"op": "change", "id": token.id, "fields": fields, "touch": False}


def _users_deleted(listed: list[_Listed]) -> Iterator[dict[str, Any]]:
    tokens_of = Counter(token.user_id for token in listed if token.user_id is not None)
    left = len(listed) * WITHOUT_USER_SHARE
    for user, tokens in sorted(tokens_of.items(), key=lambda pair: (pair[1], pair[0])):
        if left <= 0:
            break
        left -= tokens
        yield {"op": "delete_user", "user_id": user}


@contextmanager
def simulator(tokens: int, account: str, *, seed: int = 1) -> Iterator[Simulator]:
    """Serve a generated account of ``tokens`` tokens, without delay."""
    command = [*program(), "simulate", "--tokens", str(tokens), "--kind", account]
    command += ["--seed", str(seed), "--until", "2026-01-05", "--partner-id", str(PARTNER_ID)]
    command += ["--admin-secret", ADMIN_SECRET]
    environment = clean_environment()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None  # noqa: S101
            line = server.stdout.readline()
            if not line.startswith("listening on "):
                raise RuntimeError(f"the simulator did not start: {line!r}")
            yield Simulator(line.removeprefix("listening on ").strip(), server.pid, account)
        finally:
            server.terminate()
