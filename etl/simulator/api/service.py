"""The service without sockets: an HTTP request in, an HTTP reply out."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from etl.simulator.account.life import Life
from etl.simulator.api import errors
from etl.simulator.api.auth import identify, require_service
from etl.simulator.api.call import Call, RequestRecord
from etl.simulator.api.churn import Churn
from etl.simulator.api.directory import Directory
from etl.simulator.api.errors import ApiError
from etl.simulator.api.params import read_params
from etl.simulator.api.php import to_text
from etl.simulator.api.reply import encode_result
from etl.simulator.api.reply_faults import api_error, apply_reply_fault
from etl.simulator.api.sessions import SessionService
from etl.simulator.api.upload_token import UploadTokenService
from etl.simulator.faults import Fault, Faults, RequestInfo
from etl.simulator.message import HttpReply, HttpRequest

LOG_LENGTH = 100_000
_NO_STORE = [
    ("Expires", "Sun, 19 Nov 2000 08:52:00 GMT"),
    ("Cache-Control", "no-store, no-cache, must-revalidate, post-check=0, pre-check=0"),
    ("Pragma", "no-cache"),
]
_LOGINS = frozenset(
    {
        ("session", "start"),
        ("session", "startwidgetsession"),
        ("session", "get"),
        ("apptoken", "startsession"),
    }
)


class Service:
    """All actions over all partners.  ``clock`` is the service's time, for sessions."""

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
        self.partner = next(iter(directory.partners.values()))
        self.account = self.partner.account
        """The account that churns, and whose truth can be queried."""
        self.clock = clock
        self.faults = faults or Faults(seed)
        self.tokens = UploadTokenService(seed)
        self.sessions = SessionService(directory, seed)
        self.churn: Churn | None = None
        self.log: deque[RequestRecord] = deque(maxlen=LOG_LENGTH)
        """The last requests, oldest first."""
        self.rate_limit: tuple[int, float] | None = None
        """(calls, seconds): calls of one action beyond that number in the window are blocked."""
        self.latency_seconds = 0.0
        self.row_latency_seconds = 0.0
        self.workers: threading.Semaphore | None = None
        """How many requests are worked on at a time; None for any number."""
        self.keep_ids = keep_ids
        self._seed = seed
        self._life: Life | None = None
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

    def configure(
        self,
        *,
        latency_ms: float | None = None,
        row_latency_ms: float | None = None,
        workers: int | None = None,
        page_cap: int | None = None,
        shuffle_ties: bool | None = None,
        poison: list[str] | None = None,
        upload_url: str | None = None,
        rate_limit: tuple[int, float] | None = None,
        partner_status: int | None = None,
        keep_ids: bool | None = None,
    ) -> None:
        """Change settings while it runs; what is None stays as it is.

        ``rate_limit`` is (calls, seconds), (0, 0) for none; ``upload_url`` "" for none;
        ``workers`` 0 for any number.
        """
        with self.account.lock:
            if latency_ms is not None:
                self.latency_seconds = latency_ms / 1000
            if row_latency_ms is not None:
                self.row_latency_seconds = row_latency_ms / 1000
            if workers is not None:
                self.workers = threading.Semaphore(workers) if workers else None
            if page_cap is not None:
                if page_cap < 1:
                    raise ValueError("the page cap must be at least 1")
                self.tokens.page_cap = page_cap
            if shuffle_ties is not None:
                self.tokens.shuffle_ties = shuffle_ties
            if poison is not None:
                self.account.poison = set(poison)
            if upload_url is not None:
                self.tokens.upload_url = upload_url or None
            if rate_limit is not None:
                calls, seconds = rate_limit
                self.rate_limit = (int(calls), float(seconds)) if calls else None
            if keep_ids is not None:
                self.keep_ids = keep_ids
            if partner_status is not None:
                self.partner.status = partner_status

    def life(self) -> Life:
        """The life of the account, begun at the first call; from then on its clock stands still."""
        if self._life is None:
            self._life = Life(self.account, seed=self._seed)
        return self._life

    def handle(self, request: HttpRequest) -> tuple[HttpReply, Fault | None]:
        """The reply, and the fault that the connection must still apply to it, if any."""
        params = read_params(request)
        service, action = to_text(params.get("service")), to_text(params.get("action"))
        with self.account.lock:
            number = self.account.requests_answered + 1
            position = _position(service, action, params)
            info = RequestInfo(number, service, action, position, params, request)
            fault = self.faults.decide(info)
            record = RequestRecord(
                number,
                time.time(),
                service,
                action,
                position,
                filter=params.get("filter"),
                fault=fault.kind if fault else None,
                mark=self.account.mark,
            )
            now = self.clock()
            result = self._call(info, record, fault, now)
            body, headers = encode_result(result, params)
            headers = [*_NO_STORE, *self._marks(info, result, fault, now), *headers]
            if fault is not None:
                body = apply_reply_fault(fault, body)
            self.account.requests_answered = number
            self.log.append(record)
            if self.churn is not None and position in ("list", "idIn"):
                self.churn.happen(self.account, record)
        return HttpReply(body, headers=headers, rows=record.rows or 0), fault

    def take_time(self, reply: HttpReply, closed: threading.Event) -> None:
        """Wait for as long as a reply takes, or until ``closed``.

        With ``workers``, requests beyond their number wait for one: so a reply takes the longer,
        the more requests are in flight, and more of them at a time gain nothing.
        """
        with self.workers or nullcontext():
            closed.wait(self.latency_seconds + self.row_latency_seconds * reply.rows)

    def _call(
        self, info: RequestInfo, record: RequestRecord, fault: Fault | None, now: float
    ) -> Any:
        """The result of the action; an error is returned, not raised."""
        service, action, request = info.service, info.action, info.request
        try:
            self._limit_rate(service, action, now)
            known = self._actions.get(service.lower())
            if known is None:
                raise errors.service_does_not_exist(service)
            run = known.get(action.lower())
            if run is None:
                raise errors.action_does_not_exist(service, action)
            if fault is not None and fault.group == "api":
                raise api_error(fault, info)
            caller = identify(
                info.params, self.directory, now=now, uri=request.target, peer=request.peer
            )
            return run(Call(info.params, caller, now, fault, record, self.keep_ids))
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

    def _marks(
        self, info: RequestInfo, result: Any, fault: Fault | None, now: float
    ) -> list[tuple[str, str]]:
        """The X-Kaltura headers of a reply.

        The fast path of session.start announces itself as cached, with a fresh session.
        """
        fast = (info.service.lower(), info.action.lower()) == ("session", "start")
        marked = fault is not None and fault.kind in ("cached", "stale-cached")
        if marked or (fast and isinstance(result, str)):
            key = f"{'' if fast else 'cache_v3-'}{self._rng.getrandbits(128):032x}"
            return [("X-Kaltura", f"cached-dispatcher,{key},7.4E-5")]
        session = ("X-Kaltura-Session", f"{self._rng.getrandbits(31)}, {int(now)}")
        if isinstance(result, ApiError) and result.announced:
            reason = f"exiting on error {result.code} - {result.message}"
            return [session, ("X-Kaltura", f"error-{result.code}"), ("X-Kaltura-App", reason)]
        return [session]


def _list_media(call: Call) -> Mapping[str, Any]:
    """No media are simulated; the action exists so that a role can be refused it."""
    require_service(call.caller, "media", "list", call.params)
    return {"totalCount": 0, "objects": [], "objectType": "KalturaMediaListResponse"}


def _position(service: str, action: str, params: Mapping[str, Any]) -> str:
    known = (service.lower(), action.lower())
    if known == ("uploadtoken", "list"):
        chosen = params.get("filter")
        return "idIn" if isinstance(chosen, Mapping) and chosen.get("idIn") else "list"
    return "login" if known in _LOGINS else "other"
