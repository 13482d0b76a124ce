"""The control interface under ``/simulator/``: truth, logs, mutations, faults, churn, time.

Every reply is JSON; an invalid request gets HTTP 400 and ``{"error": …}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from etl.simulator.api.churn import Churn
from etl.simulator.api.reply import ListReply
from etl.simulator.api.service import Service
from etl.simulator.message import HttpReply, HttpRequest

PREFIX = "/simulator/"
_JSON = [("Content-Type", "application/json")]


def handle_control(service: Service, request: HttpRequest) -> HttpReply:
    """Answer a request below ``/simulator/``."""
    name = request.path[len(PREFIX) :].strip("/")
    query = dict(parse_qsl(request.query))
    try:
        if request.method == "GET" and name in _READERS:
            return _reply(_READERS[name](service, query))
        if request.method == "POST" and name in _WRITERS:
            body = msgspec.json.decode(request.body or b"{}")
            if not isinstance(body, dict):
                raise ValueError("the body must be a JSON object")
            return _reply(_WRITERS[name](service, body))
    except (KeyError, TypeError, ValueError, msgspec.DecodeError) as exc:
        return HttpReply(msgspec.json.encode({"error": f"{name}: {exc}"}), 400, list(_JSON))
    known = ", ".join(sorted([f"GET {n}" for n in _READERS] + [f"POST {n}" for n in _WRITERS]))
    return HttpReply(msgspec.json.encode({"error": f"known: {known}"}), 404, list(_JSON))


def _reply(value: Any) -> HttpReply:
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return HttpReply(body, headers=list(_JSON))


# ---- reading ----------------------------------------------------------------------------------


def _status(service: Service, _: Mapping[str, str]) -> dict[str, Any]:
    account = service.account
    churn = service.churn
    return {
        "partner_id": account.partner_id,
        "tokens": len(account),
        "requests": account.requests_answered,
        "mark": account.mark,
        "account_time": account.clock(),
        "churn": churn.describe() if churn else None,
        "faults": service.faults.describe(),
        "fired": dict(service.faults.fired),
    }


def _mark(service: Service, _: Mapping[str, str]) -> dict[str, int]:
    with service.account.lock:
        return {"mark": service.account.mark, "requests": service.account.requests_answered}


def _marks_of(service: Service, query: Mapping[str, str]) -> tuple[int, int]:
    """The interval of a question: by marks, by request numbers, or by Unix times."""
    account = service.account
    if "from_request" in query:
        last = int(query.get("to_request", account.requests_answered))
        return (
            account.mark_at_request(int(query["from_request"])),
            account.mark_at_request(last),
        )
    if "from_time" in query:
        last_time = float(query.get("to_time", "inf"))
        return account.mark_at_time(float(query["from_time"])), account.mark_at_time(last_time)
    return int(query.get("from_mark", 0)), int(query.get("to_mark", account.mark))


def _truth(service: Service, query: Mapping[str, str]) -> dict[str, Any]:
    with service.account.lock:
        first, last = _marks_of(service, query)
        what = query.get("what", "throughout")
        if what == "throughout":
            rows = service.account.listed_throughout(first, last)
        elif what == "sometime":
            rows = service.account.listed_sometime(first, last)
        else:
            raise ValueError(f"what={what} is neither throughout nor sometime")
        return {"from_mark": first, "to_mark": last, what: rows}


def _log(service: Service, query: Mapping[str, str]) -> list[dict[str, Any]]:
    since = int(query.get("since", 0))
    with service.account.lock:
        return [asdict(record) for record in service.log if record.number > since]


def _list(service: Service, _: Mapping[str, str]) -> bytes:
    with service.account.lock:
        rows = [token.body for token in service.account.line]
    return ListReply(len(rows), rows).as_json()


# ---- writing ----------------------------------------------------------------------------------


def _mutate(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    account = service.account
    done = []
    with account.lock:
        for op in body["ops"]:
            kind = op["op"]
            if kind == "insert":
                account.insert(op["token"])
                done.append(True)
            elif kind == "delete":
                done.append(account.delete(op["id"], op.get("created_at")))
            elif kind == "undelete":
                done.append(account.undelete(op["id"]))
            elif kind == "change":
                fields = dict.fromkeys(op.get("remove", ()), ...) | op.get("fields", {})
                done.append(account.change(op["id"], fields, touch=op.get("touch", True)))
            elif kind == "delete_user":
                done.append(account.delete_user(op["user_id"]) > 0)
            else:
                raise ValueError(f"there is no op {kind!r}")
        return {"done": done, "mark": account.mark}


def _faults(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    if body.get("clear"):
        service.faults.clear()
    for rule in body.get("rules", ()):
        given = dict(rule)
        service.faults.schedule(given.pop("kind"), **given)
    return {"faults": service.faults.describe()}


def _churn(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    service.churn = Churn(**body) if body else None
    churn = service.churn
    return {"churn": churn.describe() if churn else None}


def _advance(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    events = service.life().advance(hours=float(body.get("hours", 24)))
    return {"events": dict(events), "account_time": service.account.clock()}


def _configure(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    service.configure(**body)
    return {"done": True}


_READERS = {"status": _status, "mark": _mark, "truth": _truth, "log": _log, "list": _list}
_WRITERS = {
    "mutate": _mutate,
    "faults": _faults,
    "churn": _churn,
    "advance": _advance,
    "configure": _configure,
}
