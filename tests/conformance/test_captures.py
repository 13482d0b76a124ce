"""The simulator answers as the recorded replies of a live server do.

Each capture's request is sent again, over HTTP, to a simulator that serves the recorded account,
with its clock set to the moment of the capture; status, headers and body must be equal.  Set
aside are only session strings, random ids, the session number, times that were measured, and the
marks of the service's response cache: the program bypasses it (``nocache``), so the simulator
has none.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from etl.simulator import DEFAULT_ADMIN_SECRET, Account, Partner, SimulatorServer
from etl.simulator.account.encode import encode_token
from etl.simulator.account.generate import account_from_file
from etl.simulator.api.ks import mint_v1

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).resolve().parents[2]

EXCEPTIONS: dict[str, str] = {}
"""Captures that are not replayed, with the reason; also in docs/reference/simulator.md."""

PARTNER_103_SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
TRUNCATED = "...TRUNCATED"
NEW_TOKEN_TIME = 1795423635


def read_captures() -> list[dict[str, Any]]:
    with gzip.open(DATA / "captures.json.gz", "rt", encoding="utf-8") as file:
        captures: list[dict[str, Any]] = json.load(file)
    return captures


# ---- the situation of a capture ------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Situation:
    """A server as it was when a capture was taken."""

    def __init__(self, account_file: Path, captures: dict[str, dict[str, Any]]) -> None:
        self.clock = Clock()
        self.captures = captures
        self.account = account_from_file(account_file, clock=self.clock)
        self.other = partner_103(self.clock)
        self.server = SimulatorServer(self.account, clock=self.clock, other_partners=[self.other])

    def prepare(self, name: str) -> None:
        self.clock.now = time_of(self.captures[name])
        if name in PREPARE:
            PREPARE[name](self)

    def send(self, capture: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        body = capture["request_body"]
        connection.request(
            capture["method"],
            capture["url"],
            None if body is None else resign(body).encode(),
            capture["request_headers"],
        )
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, reply.getheaders(), content

    def replay(self, name: str, times: int = 1) -> None:
        for _ in range(times):
            self.send(self.captures[name])

    def add_tokens(self, count: int = 4) -> None:
        """The tokens that were added between the first captures and the later ones."""
        added: list[dict[str, Any]] = [
            {"id": "0_4c499c1cfa5c5d1892bc16c20b233773", "fileName": "auto.bin",
             "fileSize": "1234", "autoFinalize": True},
            {"id": "0_b6ec1998c6b7d35d1a9d035bf985c0af", "fileName": "huge.bin",
             "fileSize": "1234567890123500"},
            {"id": "0_cbf07bdc904b1c9529aff21adcc462c4", "fileName": "huge.bin",
             "fileSize": "10000000000000000"},
            {"id": "0_49b4e0435f0e3195cf88f7740732a1a2"},
        ]  # fmt: skip
        # The recorded server read the tokens of one second in the order of their ids.
        for fields in sorted(added[:count], key=lambda row: str(row["id"])):
            times = {"createdAt": NEW_TOKEN_TIME, "updatedAt": NEW_TOKEN_TIME}
            self.account.insert({"userId": "bob", **times, **fields})


def partner_103(clock: Clock) -> Partner:
    """40 tokens in one second; four of them are known, and the others sort behind them."""
    known = (("03d3ce6a91fadde67b6e378370a25650", 3003), ("0681f6f3fd88a6ad97fd30709fbb37c2", 3008),
             ("1b258ad52e50d34a041c1752ca3cc77b", 3014), ("2cc4824a9141ddf3a65a77fbd493cb60", 3037),
             *((f"f{number:031x}", 4000 + number) for number in range(36)))  # fmt: skip
    account = Account(103, clock=clock)
    rows = []
    for token_id, number in known:
        fields = {
            "id": f"0_{token_id}", "partnerId": 103, "userId": "zed", "status": 3,
            "fileName": f"other {number}.mp4", "fileSize": str(number),
            "uploadedFileSize": str(number), "createdAt": 1769932800, "updatedAt": 1769932805,
            "autoFinalize": False, "attachedObjectType": "entry",
            "attachedObjectId": f"0_t{number}",
        }  # fmt: skip
        rows.append((str(fields["id"]), 1769932800, 3, "zed", encode_token(fields)))
    account.load(rows)
    return Partner(account, PARTNER_103_SECRET)


def resign(body: str) -> str:
    """Partner 103's sessions, signed again: the secret that signed the recorded ones is unknown."""
    try:
        given = json.loads(body)
    except ValueError:
        return body
    ks = given.get("ks", "") if isinstance(given, dict) else ""
    found = re.match(r"[0-9a-f]{40}\|103;103;(\d+);2;", _decode_v1(ks))
    if not found:
        return body
    new = mint_v1(PARTNER_103_SECRET, 103, expires_at=int(found.group(1)), user_id="etl")
    return body.replace(ks, new)


def _decode_v1(ks: str) -> str:
    try:
        return base64.b64decode(ks).decode("latin-1")
    except ValueError:
        return ""


def time_of(capture: dict[str, Any]) -> float:
    return parsedate_to_datetime(dict(capture["headers"])["Date"]).timestamp()


def _later_state(situation: Situation) -> None:
    """1,753 tokens: three added, of the four that were, and one old one deleted since."""
    situation.add_tokens(3)
    situation.account.delete("0_3c072c2b3408eed1e8aebedea79b817f")


def _with_upload_url(situation: Situation) -> None:
    _later_state(situation)
    situation.server.configure(upload_url="http://upload.example.com")


def _with_app_token(situation: Situation) -> None:
    token = json.loads(situation.captures["apptoken-add"]["body_text"])
    situation.server.partner.app_tokens[token["id"]] = token


def _rate_limited(calls_before: int, seconds_ago: float = 0.0) -> Callable[[Situation], None]:
    def prepare(situation: Situation) -> None:
        _later_state(situation)
        situation.server.configure(rate_limit=(3, 10.0))
        situation.clock.now -= seconds_ago
        situation.replay("err-rate-limit-call3", calls_before)
        situation.clock.now += seconds_ago

    return prepare


def _fault(kind: str) -> Callable[[Situation], None]:
    return lambda situation: situation.server.faults.schedule(kind)


def _poison(token_id: str) -> Callable[[Situation], None]:
    return lambda situation: situation.server.configure(poison=[token_id])


def _after(name: str, times: int = 1) -> Callable[[Situation], None]:
    return lambda situation: situation.replay(name, times)


def _partner_status(status: int) -> Callable[[Situation], None]:
    def prepare(situation: Situation) -> None:
        situation.other.status = status

    return prepare


def _deleted_before(situation: Situation) -> None:
    situation.add_tokens()
    situation.replay("token-delete")


PREPARE: dict[str, Callable[[Situation], None]] = {
    "apptoken-startSession": _with_app_token,
    "auth-actionslimit2-call3": _after("auth-actionslimit2-call1", 2),
    "auth-logged-out": _after("session-end"),
    # Outages.
    "err-db-down": _fault("internal-database-error"),
    "err-db-down-session-start": _fault("internal-database-error"),
    "err-fatal-memory-exhausted-500-empty": _fault("500-empty"),
    "err-memcache-down": _fault("memcache-down"),
    "err-memcache-down-empty-page-ok": _fault("memcache-down"),
    "err-poison-row-null-dc": _poison("0_ed22bd509e7427b8d732fad791b36767"),
    "err-poison-row-unknown-dc-responseprofile": _poison("1_1fa7c9a34edf4ea4b9934f98cdaff52e"),
    "err-rate-limit-call3": _rate_limited(2),
    "err-rate-limit-call5": _rate_limited(4),
    "err-rate-limit-after-expiry": _rate_limited(5, seconds_ago=11),
    # The account at other moments.
    "list-with-uploadUrl": _with_upload_url,
    "list-with-uploadUrl-responseprofile": _with_upload_url,
    "token-delete": Situation.add_tokens,
    "token-delete-again": _deleted_before,
    "token-new-in-list": Situation.add_tokens,
    "partner-status-0": _partner_status(0),
    "partner-status-3": _partner_status(3),
    "partner-status-4": _partner_status(4),
    "partner-status-6": _partner_status(6),
}

# ---- comparing -----------------------------------------------------------------------------------

_SESSION = re.compile(r"djJ8[A-Za-z0-9_\-]{40,}=*")
_REFUSED_SESSION = re.compile(r'(?<="KSID":")[^"]*|(?<=Invalid KS \\")[^"\\]*')
_RANDOM_IDS = {
    "apptoken-add": re.compile(r'(?<="id":")0_[a-z0-9]{8}(?=")|(?<="token":")[0-9a-f]{32}(?=")'),
    "token-add-autofinalize": re.compile(r'(?<="id":")0_[0-9a-f]{32}(?=")'),
    "token-add-bigsize": re.compile(r'(?<="id":")0_[0-9a-f]{32}(?=")'),
}


def is_cached(capture: dict[str, Any]) -> bool:
    """Whether the reply was recorded out of the service's response cache.

    Such an error names the session of the request that put it there.
    """
    mark = str(dict(capture["headers"]).get("X-Kaltura"))
    return mark.startswith("cached-dispatcher,cache_v3-")


def comparable_text(capture: dict[str, Any], text: str) -> str:
    """A body without what differs from run to run.  A session that is refused stays as it is."""
    name = capture["name"]
    if '"INVALID_KS"' not in text:
        text = _SESSION.sub("<ks>", text)
    elif is_cached(capture):
        text = _REFUSED_SESSION.sub("<ks>", text)
    return _RANDOM_IDS[name].sub("<id>", text) if name in _RANDOM_IDS else text


def comparable_headers(
    capture: dict[str, Any], headers: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """All headers but those of the connection and of the response cache.

    Of random and measured values only the form is compared.
    """
    kept = []
    for name, value in headers:
        shown = value
        if name in ("Transfer-Encoding", "Connection", "Content-Length"):
            continue
        if is_cached(capture) and name.startswith("X-Kaltura"):
            continue
        if name == "X-Kaltura" and value.startswith("cache-key,"):
            continue
        if name == "X-Kaltura-Session":
            shown = re.sub(r"^\d+, \d+$", "<number>, <time>", value)
        if name == "X-Kaltura":
            shown = re.sub(r",[0-9.E-]+$", ",<seconds>", value)
            shown = re.sub(r"(cache_v3-)?[0-9a-f]{32}", "<key>", shown)
        kept.append((name, shown))
    return sorted(kept)


@pytest.fixture(scope="module")
def account_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("account") / "account-102.json"
    path.write_bytes(gzip.decompress((DATA / "account-102.json.gz").read_bytes()))
    return path


CAPTURES = {capture["name"]: capture for capture in read_captures()}


@pytest.mark.parametrize("name", [name for name in CAPTURES if name not in EXCEPTIONS])
def test_reply_equals_capture(name: str, account_file: Path) -> None:
    capture = CAPTURES[name]
    situation = Situation(account_file, CAPTURES)
    with situation.server:
        situation.prepare(name)
        status, headers, content = situation.send(capture)

    assert status == capture["status"]
    text = content.decode("utf-8", "backslashreplace")
    recorded = capture["body_text"]
    if recorded.endswith(TRUNCATED):
        recorded = recorded.removesuffix(TRUNCATED)
        assert len(content) == capture["bytes"]
        text = text[: len(recorded)]
    assert comparable_text(capture, text) == comparable_text(capture, recorded)
    assert comparable_headers(capture, headers) == comparable_headers(
        capture, [(header, value) for header, value in capture["headers"]]
    )


def test_there_are_captures() -> None:
    assert len(CAPTURES) == 131
    assert set(EXCEPTIONS) <= set(CAPTURES)
    assert set(PREPARE) <= set(CAPTURES)


def test_default_secret_is_the_recorded_one() -> None:
    body = json.loads(CAPTURES["session-start-admin"]["request_body"])
    assert body["secret"] == DEFAULT_ADMIN_SECRET


def test_exceptions_are_documented() -> None:
    text = (ROOT / "docs" / "reference" / "simulator.md").read_text()
    section = text.partition("## Captures left out")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"^\* `([\w.-]+)`: (.+)$", section, re.MULTILINE))
    assert documented == EXCEPTIONS
