"""The service as a whole: an HTTP request in, an HTTP reply out; nothing of sockets in here."""

from __future__ import annotations

import random
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from etl.simulator.account.churn import Churn
from etl.simulator.api import errors
from etl.simulator.api.auth import Caller, identify, require_service
from etl.simulator.api.call import Call, RequestRecord
from etl.simulator.api.directory import Directory
from etl.simulator.api.errors import ApiError
from etl.simulator.api.params import read_params
from etl.simulator.api.php import to_text
from etl.simulator.api.reply import encode_result, to_value
from etl.simulator.api.reply_cache import ANONYMOUS_SECONDS, ERROR_SECONDS, ReplyCache, cache_key
from etl.simulator.api.sessions import SessionService
from etl.simulator.api.upload_token import UploadTokenService
from etl.simulator.faults import Fault, Faults, RequestInfo, api_error
from etl.simulator.http.wire import HttpReply, HttpRequest

LOG_LENGTH = 100_000
_NO_STORE = [
    ("Expires", "Sun, 19 Nov 2000 08:52:00 GMT"),
    ("Cache-Control", "no-store, no-cache, must-revalidate, post-check=0, pre-check=0"),
    ("Pragma", "no-cache"),
]
_OPTIONS = [
    (
        "Access-Control-Allow-Headers",
        "Origin, X-Requested-With, Content-Type, Accept, Range, Cache-Control",
    ),
    ("Access-Control-Allow-Methods", "POST, GET, HEAD, OPTIONS"),
    ("Access-Control-Max-Age", "86400"),
    ("Content-type", "text/html; charset=UTF-8"),
]
_LOGINS = frozenset(
    {
        ("session", "start"),
        ("session", "startwidgetsession"),
        ("session", "get"),
        ("apptoken", "startsession"),
    }
)
_RESULT_REFERENCE = re.compile(r"^\{(\d+):result((?::[^:{}]+)*)\}$")


@dataclass(slots=True)
class _Exchange:
    """One request on its way through the service; ``key`` is set if its reply may be cached."""

    request: HttpRequest
    info: RequestInfo
    record: RequestRecord
    fault: Fault | None
    caller: Caller
    now: float
    started: float
    key: str = ""


class Service:
    """All actions over all partners.  ``clock`` is the service's time, for sessions and caches."""

    def __init__(
        self,
        directory: Directory,
        *,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        faults: Faults | None = None,
        keep_ids: bool = False,
    ) -> None:
        self.directory = directory
        self.account = next(iter(directory.partners.values())).account
        """The account that churns, and whose truth is asked for."""
        self.clock = clock
        self.faults = faults or Faults(seed)
        self.tokens = UploadTokenService(seed)
        self.sessions = SessionService(directory, seed)
        self.churn: Churn | None = None
        self.log: deque[RequestRecord] = deque(maxlen=LOG_LENGTH)
        """The last requests, oldest first."""
        self.rate_limit: tuple[int, float] | None = None
        """(calls, seconds): calls of one action beyond that many in the window are blocked."""
        self.keep_ids = keep_ids
        self._cache = ReplyCache()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}
        self._rng = random.Random(f"{seed}/replies")  # noqa: S311
        tokens, sessions = self.tokens, self.sessions
        self._actions: dict[str, dict[str, Callable[[Call], Any]]] = {
            "uploadtoken": {
                "list": tokens.list,
                "get": tokens.get,
                "add": tokens.add,
                "delete": tokens.delete,
            },
            "session": {
                "start": sessions.start,
                "startwidgetsession": sessions.start_widget_session,
                "get": sessions.get,
                "end": sessions.end,
            },
            "apptoken": {
                "add": sessions.add_app_token,
                "get": sessions.get_app_token,
                "delete": sessions.delete_app_token,
                "startsession": sessions.start_app_token_session,
            },
            "media": {"list": _list_media},
            "system": {"ping": lambda _: True},
        }

    def handle(self, request: HttpRequest) -> tuple[HttpReply, Fault | None]:
        """The reply, and the fault that the connection must still apply to it, if any."""
        if request.method == "OPTIONS":
            return HttpReply(b"", headers=list(_OPTIONS)), None
        started = time.perf_counter()
        params = read_params(request)
        service, action = to_text(params.get("service")), to_text(params.get("action"))
        with self.account.lock:
            number = self.account.requests_answered + 1
            info = RequestInfo(number, service, action, _position(service, action, params), params)
            fault = self.faults.decide(info)
            record = RequestRecord(
                number,
                time.time(),
                service,
                action,
                info.position,
                filter=params.get("filter"),
                fault=fault.kind if fault else None,
                mark=self.account.mark,
            )
            now = self.clock()
            caller = self._identify(params, request, now)
            exchange = _Exchange(request, info, record, fault, caller, now, started)
            reply = self._reply(exchange)
            self.account.requests_answered = number
            self.log.append(record)
            if self.churn is not None and info.position in ("list", "idIn"):
                self.churn.happen(self.account, record)
        return reply, fault

    # ---- one request --------------------------------------------------------------------------

    def _identify(self, params: Mapping[str, Any], request: HttpRequest, now: float) -> Caller:
        return identify(params, self.directory, now=now, uri=request.target, peer=request.peer)

    def _reply(self, exchange: _Exchange) -> HttpReply:
        params, fault = exchange.info.params, exchange.fault
        if exchange.caller.group and "nocache" not in params and fault is None:
            exchange.key = cache_key(params, exchange.caller.group)
            kept = self._cache.get(exchange.key, exchange.now)
            if kept is not None:
                exchange.record.cached = True
                body, headers = kept
                mark = _cached_mark(exchange.key, exchange.started)
                return HttpReply(body, headers=[mark, *headers, *_NO_STORE])
        if exchange.info.service.lower() == "multirequest":
            result: Any = self._multirequest(exchange)
        else:
            result = self._call(exchange, params, exchange.caller)
        body, headers = encode_result(result, params, time.perf_counter() - exchange.started)
        marks = self._marks(exchange, result)
        if exchange.key and _may_keep(result, exchange):
            seconds = ERROR_SECONDS if _errors(result) else ANONYMOUS_SECONDS
            self._cache.put(exchange.key, (body, headers), exchange.now + seconds)
        if fault is not None and fault.kind == "stale-cached":
            marks = [_cached_mark(cache_key(params, "stale"), exchange.started)]
        if fault is not None and fault.kind == "truncated-json":
            body = body[: max(len(body) * 3 // 5, 1)]
        if fault is not None and fault.kind == "bom":
            body = b"\xef\xbb\xbf" + body
        return HttpReply(body, headers=[*_NO_STORE, *marks, *headers])

    def _marks(self, exchange: _Exchange, result: Any) -> list[tuple[str, str]]:
        """The X-Kaltura headers of a fresh reply."""
        info = exchange.info
        if info.position == "login" and info.action.lower() == "start" and isinstance(result, str):
            # The fast path of session.start announces itself as cached, with a fresh session.
            return [_cached_mark(cache_key(info.params, "start")[9:], exchange.started)]
        session = ("X-Kaltura-Session", f"{self._rng.getrandbits(31)}, {int(exchange.now)}")
        if isinstance(result, ApiError) and result.announced:
            reason = f"exiting on error {result.code} - {result.message}"
            return [session, ("X-Kaltura", f"error-{result.code}"), ("X-Kaltura-App", reason)]
        if exchange.key and _may_keep(result, exchange):
            return [session, ("X-Kaltura", f"cache-key,{exchange.key}")]
        return [session]

    def _call(self, exchange: _Exchange, params: Mapping[str, Any], caller: Caller) -> Any:
        """The result of one action; an error is returned, not raised."""
        service, action = to_text(params.get("service")), to_text(params.get("action"))
        fault, record = exchange.fault, exchange.record
        try:
            self._limit_rate(service, action, exchange.now)
            known = self._actions.get(service.lower())
            if known is None:
                raise errors.service_does_not_exist(service)
            run = known.get(action.lower())
            if run is None:
                raise errors.action_does_not_exist(service, action)
            if fault is not None and fault.group == "api":
                raise api_error(fault, exchange.info)
            return run(Call(params, caller, exchange.now, fault, record, self.keep_ids))
        except ApiError as error:
            record.error_code = error.code
            return error

    def _limit_rate(self, service: str, action: str, now: float) -> None:
        if self.rate_limit is None:
            return
        calls, seconds = self.rate_limit
        started, count = self._windows.get((service, action), (now, 0))
        if now - started >= seconds:
            started, count = now, 0
        self._windows[service, action] = (started, count + 1)
        if count + 1 > calls:
            raise errors.action_blocked(service, action)

    def _multirequest(self, exchange: _Exchange) -> list[Any]:
        """Parts 1, 2, … one after the other; the first missing number ends it silently."""
        given = exchange.info.params
        shared = {
            name: value
            for name, value in given.items()
            if not name.isdigit() and name not in ("service", "action")
        }
        results: list[Any] = []
        while isinstance(part := given.get(str(len(results) + 1)), Mapping):
            params = _resolve({**shared, **part}, results)
            caller = exchange.caller
            if params.get("ks") != given.get("ks"):
                caller = self._identify(params, exchange.request, exchange.now)
            results.append(self._call(exchange, params, caller))
        return results


def _list_media(call: Call) -> Mapping[str, Any]:
    """There is no media here; the action exists so that a least privilege can be refused it."""
    require_service(call.caller, "media", "list", call.params)
    return {"totalCount": 0, "objects": [], "objectType": "KalturaMediaListResponse"}


def _position(service: str, action: str, params: Mapping[str, Any]) -> str:
    known = (service.lower(), action.lower())
    if known == ("uploadtoken", "list"):
        chosen = params.get("filter")
        return "idIn" if isinstance(chosen, Mapping) and chosen.get("idIn") else "list"
    return "login" if known in _LOGINS else "other"


def _cached_mark(key: str, started: float) -> tuple[str, str]:
    # PHP writes 9.5E-5 where Python writes 9.5e-05.
    seconds = f"{max(time.perf_counter() - started, 1e-6):.14g}".replace("e-0", "E-")
    return "X-Kaltura", f"cached-dispatcher,{key},{seconds}"


def _parts(result: Any) -> list[Any]:
    return result if isinstance(result, list) else [result]


def _errors(result: Any) -> list[ApiError]:
    return [part for part in _parts(result) if isinstance(part, ApiError)]


def _may_keep(result: Any, exchange: _Exchange) -> bool:
    """Errors are kept, but a wrong secret's; of successes, widget sessions and their lists."""
    parts, failed = _parts(result), _errors(result)
    if any(error.code == "START_SESSION_ERROR" for error in failed):
        return False
    if parts and len(failed) == len(parts):
        return True
    if parts and all(_is_widget_session(part) for part in parts):
        return True
    anonymous = exchange.caller.group.startswith("anonymous")
    return anonymous and exchange.info.position in ("list", "idIn")


def _is_widget_session(part: Any) -> bool:
    return (
        isinstance(part, Mapping) and part.get("objectType") == "KalturaStartWidgetSessionResponse"
    )


def _resolve(value: Any, results: list[Any]) -> Any:
    """Replace ``{1:result:objects:0:id}`` by what part 1 answered."""
    if isinstance(value, Mapping):
        return {name: _resolve(item, results) for name, item in value.items()}
    if not isinstance(value, str):
        return value
    found = _RESULT_REFERENCE.match(value)
    if not found or not 1 <= int(found.group(1)) <= len(results):
        return value
    known = to_value(results[int(found.group(1)) - 1])
    for name in filter(None, found.group(2).split(":")):
        if isinstance(known, Mapping) and name in known:
            known = known[name]
        elif isinstance(known, list) and name.isdigit() and int(name) < len(known):
            known = known[int(name)]
        else:
            return value
    return known
