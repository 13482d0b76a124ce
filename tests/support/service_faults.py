"""A client against a simulator with a fault in its way, and the search for leaked secrets."""

from __future__ import annotations

import base64
import logging
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from etl.errors import EtlError
from etl.kaltura.service import Credentials, RetryLimits, ServiceSettings, open_service
from etl.kaltura.upload_token import UploadTokens
from etl.process.stop import Stop
from etl.simulator import Account, Fault, SimulatorServer
from etl.simulator.faults import RequestInfo

PARTNER = 102
APP_TOKEN_ID = "0_c6604ueb"
APP_TOKEN = "canary0apptoken0f00dfeedc0ffee00"
ADMIN_SECRET = "canary0adminsecret0f00dfeedc0ffe"
APP_KS = "djJ8MTAyfCANARYapptoken_A03r9utZeV-S8X4Ea=="
OTHERS_KS = "djJ8OTk5fCANARYsomebodyelse_zHzDrXcZ_nq875dj9"
PROXY_PASSWORD = "canary0proxy0password"
CANARIES = (APP_TOKEN, ADMIN_SECRET, APP_KS, OTHERS_KS, PROXY_PASSWORD)
CREDENTIALS = Credentials(PARTNER, app_token_id=APP_TOKEN_ID, app_token=APP_TOKEN)
LIST_PATH = "/api_v3/service/uploadtoken/action/list?format=1"
POSITIONS = ("login", "list", "idIn")
LIMITS = RetryLimits()
TOKENS = 5


class Waits(list[float]):
    """The waits that the client asked for.  They take no time, but its clock moves on by them."""

    def sleep(self, seconds: float) -> None:
        self.append(seconds)

    def monotonic(self) -> float:
        return time.monotonic() + sum(self)


class Served:
    """A simulator with five tokens, every request that it got, and faults at one position."""

    def __init__(self, server: SimulatorServer) -> None:
        self.server = server
        self.requests: list[RequestInfo] = []
        self.stop = Stop()
        self._faults: Iterator[Fault | None] = iter(())
        self._where = "list"
        server.partner.app_tokens[APP_TOKEN_ID] = {
            "id": APP_TOKEN_ID,
            "token": APP_TOKEN,
            "hashType": "SHA1",
            "sessionType": 2,
            "sessionDuration": 3600,
        }
        server.faults.decide_by = self._decide

    def meet(self, fault: Fault | str, where: str = "list", times: float = float("inf")) -> None:
        """Put a fault in the way of the next ``times`` requests at that position."""
        met = repeat(fault) if times == float("inf") else repeat(fault, int(times))
        self.meet_each(met, where)

    def meet_each(self, faults: Iterable[Fault | str], where: str = "list") -> None:
        """Put one fault after the other in the way of the next requests at that position."""
        self._faults = (Fault(each) if isinstance(each, str) else each for each in faults)
        self._where = where

    def at(self, position: str) -> list[RequestInfo]:
        return [info for info in self.requests if info.position == position]

    def sessions(self) -> set[str]:
        """Every session string that a request brought."""
        return {str(info.params["ks"]) for info in self.requests if "ks" in info.params}

    def _decide(self, info: RequestInfo) -> Fault | None:
        self.requests.append(info)
        return next(self._faults, None) if info.position == self._where else None


Serve = Callable[..., Served]
"""Starts a ``Served``; ``tls`` is the context of an HTTPS server."""


def new_server(**options: Any) -> SimulatorServer:
    account = Account(PARTNER)
    for number in range(TOKENS):
        account.insert({"id": f"0_{number}", "createdAt": 1_700_000_000 + number})
    return SimulatorServer(account, admin_secret=ADMIN_SECRET, **options)


def sent_by(info: RequestInfo) -> dict[str, Any]:
    """The JSON body of a request, as it was sent."""
    return msgspec.json.decode(info.request.body, type=dict[str, Any])


def api_fault(code: str, **args: str) -> Fault:
    """An error of the service whose message leaks another client's session."""
    message = f'Invalid KS "{OTHERS_KS}", {args}'
    return Fault("unknown-error", {"code": code, "message": message, "args": args})


def status_fault(status: int, body: bytes = b"", **headers: str) -> Fault:
    """An HTTP status; ``headers`` by name, with ``_`` for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault("status", {"status": status, "headers": named, "body": body})


def open_at(
    service: Served,
    waits: Waits,
    credentials: Credentials = CREDENTIALS,
    *,
    limits: RetryLimits = LIMITS,
    ca_file: Path | None = None,
    use_environment_proxies: bool = False,
) -> UploadTokens:
    return open_service(
        service.server.url,
        credentials,
        stop=service.stop,
        sleep=waits.sleep,
        monotonic=waits.monotonic,
        settings=ServiceSettings(
            retry=limits,
            app_token_hash="SHA1",
            ca_file=ca_file,
            use_environment_proxies=use_environment_proxies,
        ),
    )


def run_at(
    service: Served,
    waits: Waits,
    *,
    limits: RetryLimits = LIMITS,
    ca_file: Path | None = None,
    use_environment_proxies: bool = False,
) -> int:
    """Log in, read a page, look ids up: every position once.  Gives the number of requests."""
    with open_at(
        service,
        waits,
        limits=limits,
        ca_file=ca_file,
        use_environment_proxies=use_environment_proxies,
    ) as tokens:
        assert len(tokens.list_page(1, 500).rows) == TOKENS
        assert len(tokens.list_by_id(["0_1", "0_2"]).rows) == 2
        return tokens.counters.requests


# ---- the search for secrets -------------------------------------------------------------------


@dataclass
class Seen:
    """Everything that left the client as text in one test, and the servers that it talked to."""

    errors: list[EtlError] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)

    def texts(self, records: list[logging.LogRecord]) -> str:
        parts = [f"{record.getMessage()} {record.__dict__!r}\n" for record in records]
        for error in self.errors:
            parts += [f"{error.message} {error.fields}\n", *traceback.format_exception(error)]
            parts.append(_text_of_chain(error))
        return "".join(parts)

    def secrets(self) -> list[str]:
        """The canaries, and the sessions that were really used."""
        used = {ks for served in self.served for ks in served.sessions()}
        return [*CANARIES, *sorted(used)]


def _text_of_chain(error: BaseException | None) -> str:
    """What an error reporter would find: each error of the chain, with the request it holds."""
    text = ""
    while error is not None:
        text += f"{error!r} {error.args!r} {vars(error)!r}\n"
        request = vars(error).get("_request")
        text += repr(getattr(request, "content", b""))
        error = error.__cause__ or error.__context__
    return text


def forbidden_forms(secrets: list[str]) -> list[str]:
    """Each form in which a secret travels."""
    forms = []
    for secret in secrets:
        encoded = base64.b64encode(secret.encode()).decode()
        forms += [
            secret,
            secret[:18],
            secret[4:20],
            secret[-16:],
            encoded.rstrip("=")[:-2],
            quote(secret, safe=""),
        ]
        forms.append(secret.encode().hex())
    return forms


@contextmanager
def full_backlog() -> Iterator[str]:
    """The address of a listener whose queue is full: it neither accepts nor refuses."""
    with socket.socket() as listener, ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def error_of(seen: Seen, kind: type[EtlError]) -> Iterator[list[EtlError]]:
    """Expect an error; it is in the list afterwards, and searched for secrets."""
    caught: list[EtlError] = []
    with pytest.raises(kind) as raised:
        yield caught
    caught.append(raised.value)
    seen.errors.append(raised.value)
