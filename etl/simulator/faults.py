"""Faults on demand: which request gets which, by rate, by schedule, or by a test's own function.

What a fault does to a reply is in ``api/reply_faults.py`` and ``http/transport_faults.py``.  The
kinds are listed in ``FAULT_KINDS`` and described in ``docs/reference/simulator.md``.
"""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from etl.simulator.message import HttpReply, HttpRequest

POSITIONS = ("any", "login", "list", "idIn", "other")
"""The kinds of requests: a login, a list, a list by ids, or anything else."""

_LISTS = frozenset({"list", "idIn"})
_NOT_LOGIN = frozenset({"list", "idIn", "other"})
_ALL = frozenset({"login", "list", "idIn", "other"})


@dataclass(frozen=True, slots=True)
class FaultKind:
    """``group`` is where it is applied: transport, http, api, page or reply."""

    group: str
    positions: frozenset[str]
    description: str


FAULT_KINDS: dict[str, FaultKind] = {
    "close": FaultKind("transport", _ALL, "connection closed before a reply"),
    "reset": FaultKind("transport", _ALL, "connection reset before a reply"),
    "reset-headers": FaultKind("transport", _ALL, "connection reset in the middle of the headers"),
    "reset-body": FaultKind("transport", _ALL, "connection reset in the middle of the body"),
    "close-body": FaultKind("transport", _ALL, "connection closed in the middle of the body"),
    "close-after-reply": FaultKind(
        "transport", _ALL, "a whole reply, then the connection is closed without notice"
    ),
    "chunked-unfinished": FaultKind(
        "transport", _ALL, "chunked body that ends without its last chunk"
    ),
    "not-http": FaultKind("transport", _ALL, "bytes that are not HTTP"),
    "drip-headers": FaultKind("transport", _ALL, "headers one byte at a time"),
    "slow-loris": FaultKind("transport", _ALL, "body one byte at a time, without end"),
    "no-answer": FaultKind("transport", _ALL, "the request is read and never answered"),
    "corrupt-gzip": FaultKind("transport", _ALL, "Content-Encoding gzip over bytes that are not"),
    "truncated-gzip": FaultKind("transport", _ALL, "gzip without its last bytes"),
    "plain-as-gzip": FaultKind("transport", _ALL, "Content-Encoding gzip over plain JSON"),
    "plain-as-brotli": FaultKind("transport", _ALL, "Content-Encoding br, which was not asked for"),
    "gzip-bomb": FaultKind("transport", _ALL, "a megabyte of gzip that unpacks to a gigabyte"),
    "oversized-body": FaultKind("transport", _ALL, "a body of a gigabyte of blanks"),
    "429": FaultKind("http", _ALL, "HTTP 429 with Retry-After"),
    "429-no-retry-after": FaultKind("http", _ALL, "HTTP 429 without Retry-After"),
    "500-empty": FaultKind("http", _ALL, "HTTP 500, text/html, empty (a PHP fatal error)"),
    "502-html": FaultKind("http", _ALL, "HTTP 502 with a gateway's HTML page"),
    "503-html": FaultKind("http", _ALL, "HTTP 503 with a gateway's HTML page"),
    "504-html": FaultKind("http", _ALL, "HTTP 504 with a gateway's HTML page"),
    "200-html": FaultKind("http", _ALL, "HTTP 200 with an HTML page"),
    "200-empty": FaultKind("http", _ALL, "HTTP 200 with an empty body"),
    "redirect-301": FaultKind("http", _ALL, "HTTP 301 to another host"),
    "redirect-302": FaultKind("http", _ALL, "HTTP 302 to another host"),
    "redirect-303": FaultKind("http", _ALL, "HTTP 303 to another host"),
    "redirect-307": FaultKind("http", _ALL, "HTTP 307 to another host"),
    "redirect-308": FaultKind("http", _ALL, "HTTP 308 to another host"),
    "status": FaultKind("http", _ALL, "HTTP 408 without a body; from Python any other status"),
    "internal-server-error": FaultKind("api", _ALL, "INTERNAL_SERVERL_ERROR"),
    "internal-database-error": FaultKind(
        "api", _NOT_LOGIN, "INTERNAL_DATABASE_ERROR (session.start goes on working)"
    ),
    "action-blocked": FaultKind("api", _ALL, "ACTION_BLOCKED (the rate limit)"),
    "ks-expired": FaultKind("api", _NOT_LOGIN, "INVALID_KS, EXPIRED"),
    "ks-logout": FaultKind("api", _NOT_LOGIN, "INVALID_KS, LOGOUT"),
    "ks-actions-limit": FaultKind("api", _NOT_LOGIN, "INVALID_KS, EXCEEDED_ACTIONS_LIMIT"),
    "ks-restricted-ip": FaultKind("api", _NOT_LOGIN, "INVALID_KS, EXCEEDED_RESTRICTED_IP"),
    "ks-invalid": FaultKind("api", _NOT_LOGIN, "INVALID_KS that repeats the session string"),
    "service-forbidden": FaultKind("api", _ALL, "SERVICE_FORBIDDEN"),
    "start-session-error": FaultKind("api", frozenset({"login"}), "START_SESSION_ERROR"),
    "unknown-error": FaultKind("api", _ALL, "an error code that is not documented"),
    "memcache-down": FaultKind(
        "page",
        _LISTS,
        "INTERNAL_SERVERL_ERROR for a page with rows, unless a responseProfile omits autoFinalize",
    ),
    "unordered-page": FaultKind("page", _LISTS, "a page that is not in the order asked for"),
    "more-rows": FaultKind("page", _LISTS, "seven rows more than asked"),
    "short-page": FaultKind("page", _LISTS, "the first rows of the page only"),
    "empty-page": FaultKind("page", _LISTS, "no rows, and totalCount 0"),
    "repeated-row": FaultKind("page", _LISTS, "one row twice"),
    "total-zero": FaultKind("page", _LISTS, "totalCount 0"),
    "total-wrong": FaultKind("page", _LISTS, "totalCount far from the truth"),
    "total-missing": FaultKind("page", _LISTS, "no totalCount"),
    "total-string": FaultKind("page", _LISTS, "totalCount as a string"),
    "foreign-partner": FaultKind("page", _LISTS, "one row of another partner"),
    "stale-cached": FaultKind(
        "page", _LISTS, "a stale page, a third of its rows gone, marked X-Kaltura: cached-…"
    ),
    "truncated-json": FaultKind("reply", _ALL, "JSON cut in the middle, framed as complete"),
    "bom": FaultKind("reply", _ALL, "a byte order mark before the JSON"),
    "cached": FaultKind("reply", _ALL, "a good reply, marked X-Kaltura: cached-…"),
    "other-json": FaultKind("reply", _ALL, "JSON of another shape"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault for one request; ``options`` depend on the kind.

    A ``script`` (of any ``kind``) writes on the socket itself what no kind expresses; it gets the
    proper reply, and returns whether the connection can be used again.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    script: Callable[[socket.socket, HttpReply], bool | None] | None = None

    @property
    def group(self) -> str:
        return "transport" if self.script is not None else FAULT_KINDS[self.kind].group


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What a fault rule or a test's function sees of a request; ``number`` counts from 1."""

    number: int
    service: str
    action: str
    position: str
    params: Mapping[str, Any]
    request: HttpRequest


@dataclass
class _Rule:
    kinds: tuple[str, ...]
    where: str
    rate: float
    at: frozenset[int] | None
    first: int | None
    options: Mapping[str, Any]
    seen: int = 0

    def draw(self, info: RequestInfo, rng: random.Random) -> Fault | None:
        if self.where not in ("any", info.position):
            return None
        kinds = [kind for kind in self.kinds if info.position in FAULT_KINDS[kind].positions]
        if not kinds:
            return None
        self.seen += 1
        if self.first is not None and self.seen > self.first:
            return None
        if self.at is not None and self.seen not in self.at:
            return None
        if self.rate < 1 and rng.random() >= self.rate:
            return None
        kind = kinds[0] if len(kinds) == 1 else rng.choice(kinds)
        return Fault(kind, self.options)


class Faults:
    """The rules of a server.  The first rule that fires decides."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)  # noqa: S311 (repeatable by design)
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self.decide_by: Callable[[RequestInfo], Fault | str | None] | None = None
        """A test's own function; it is asked before the rules."""
        self.fired: Counter[str] = Counter()
        """How often each kind was applied."""

    def schedule(
        self,
        kind: str | Iterable[str],
        *,
        where: str = "any",
        at: int | Iterable[int] | None = None,
        first: int | None = None,
        rate: float = 1.0,
        **options: Any,
    ) -> None:
        """Add a rule: ``kind`` (one, or several to draw from) for requests at ``where``.

        ``at`` picks the n-th such requests from now (from 1), ``first`` the first N of them,
        ``rate`` each with a probability.  Options by kind: 429: ``retry_after`` (seconds or text);
        redirects: ``location``; status: ``status``, ``headers``, ``body``; gzip-bomb and
        oversized-body: ``bytes``; slow-loris and drip-headers: ``interval_seconds``; unknown-error:
        ``code``, ``message``, ``args``; other-json: ``body``.
        """
        kinds = (kind,) if isinstance(kind, str) else tuple(kind)
        for one in kinds:
            if one not in FAULT_KINDS:
                known = ", ".join(FAULT_KINDS)
                raise ValueError(f"there is no fault {one!r}; the kinds are {known}")
        if where not in POSITIONS:
            raise ValueError(f"there is no position {where!r}; use one of {', '.join(POSITIONS)}")
        if not 0 <= rate <= 1:
            raise ValueError(f"the rate {rate} is not between 0 and 1")
        places = None if at is None else frozenset((at,) if isinstance(at, int) else at)
        with self._lock:
            self._rules.append(_Rule(kinds, where, rate, places, first, options))

    def clear(self) -> None:
        """Remove all rules and the function."""
        with self._lock:
            self._rules.clear()
            self.decide_by = None

    def decide(self, info: RequestInfo) -> Fault | None:
        """The fault of a request, or None."""
        with self._lock:
            fault: Fault | str | None = None
            if self.decide_by is not None:
                fault = self.decide_by(info)
            for rule in self._rules:
                if fault is None:
                    fault = rule.draw(info, self._rng)
            if isinstance(fault, str):
                fault = Fault(fault)
            if fault is not None:
                self.fired[fault.kind] += 1
            return fault

    def describe(self) -> list[dict[str, Any]]:
        """The rules, for the control interface."""
        return [
            {
                "kinds": list(rule.kinds),
                "where": rule.where,
                "rate": rule.rate,
                "at": None if rule.at is None else sorted(rule.at),
                "first": rule.first,
                "seen": rule.seen,
            }
            for rule in self._rules
        ]
