"""The control interface under ``/simulator/``: truth, logs, mutations, faults, churn, time.

Every reply is JSON; a request that makes no sense gets HTTP 400 and ``{"error": …}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from etl.simulator.account.churn import Churn
from etl.simulator.api.reply import ListReply
from etl.simulator.http.wire import HttpReply, HttpRequest

if TYPE_CHECKING:
    from etl.simulator.http.server import SimulatorServer

PREFIX = "/simulator/"
_JSON = [("Content-Type", "application/json")]


def handle_control(server: SimulatorServer, request: HttpRequest) -> HttpReply:
    """Answer a request below ``/simulator/``."""
    name = request.path[len(PREFIX) :].strip("/")
    query = dict(parse_qsl(request.query))
    try:
        if request.method == "GET" and name in _READERS:
            return _reply(_READERS[name](server, query))
        if request.method == "POST" and name in _WRITERS:
            body = msgspec.json.decode(request.body or b"{}")
            if not isinstance(body, dict):
                raise ValueError("the body must be a JSON object")
            return _reply(_WRITERS[name](server, body))
    except (KeyError, TypeError, ValueError, msgspec.DecodeError) as exc:
        return HttpReply(msgspec.json.encode({"error": f"{name}: {exc}"}), 400, list(_JSON))
    known = ", ".join(sorted([f"GET {n}" for n in _READERS] + [f"POST {n}" for n in _WRITERS]))
    return HttpReply(msgspec.json.encode({"error": f"known: {known}"}), 404, list(_JSON))


def _reply(value: Any) -> HttpReply:
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return HttpReply(body, headers=list(_JSON))


# ---- reading ----------------------------------------------------------------------------------


def _status(server: SimulatorServer, _: Mapping[str, str]) -> dict[str, Any]:
    account = server.account
    churn = server.service.churn
    return {
        "partner_id": account.partner_id,
        "tokens": len(account),
        "requests": account.requests_answered,
        "mark": account.mark,
        "account_time": account.clock(),
        "churn": churn.describe() if churn else None,
        "faults": server.faults.describe(),
        "fired": dict(server.faults.fired),
    }


def _mark(server: SimulatorServer, _: Mapping[str, str]) -> dict[str, int]:
    with server.account.lock:
        return {"mark": server.account.mark, "requests": server.account.requests_answered}


def _marks_of(server: SimulatorServer, query: Mapping[str, str]) -> tuple[int, int]:
    """The interval of a question: by marks, by request numbers, or by Unix times."""
    account = server.account
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


def _truth(server: SimulatorServer, query: Mapping[str, str]) -> dict[str, Any]:
    with server.account.lock:
        first, last = _marks_of(server, query)
        what = query.get("what", "throughout")
        if what == "throughout":
            rows = server.account.listed_throughout(first, last)
        elif what == "sometime":
            rows = server.account.listed_sometime(first, last)
        else:
            raise ValueError(f"what={what} is neither throughout nor sometime")
        return {"from_mark": first, "to_mark": last, what: rows}


def _log(server: SimulatorServer, query: Mapping[str, str]) -> list[dict[str, Any]]:
    since = int(query.get("since", 0))
    with server.account.lock:
        return [asdict(record) for record in server.service.log if record.number > since]


def _list(server: SimulatorServer, _: Mapping[str, str]) -> bytes:
    with server.account.lock:
        rows = [token.body for token in server.account.line]
    return ListReply(len(rows), rows).as_json()


# ---- writing ----------------------------------------------------------------------------------


def _mutate(server: SimulatorServer, body: Mapping[str, Any]) -> dict[str, Any]:
    account = server.account
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


def _faults(server: SimulatorServer, body: Mapping[str, Any]) -> dict[str, Any]:
    if body.get("clear"):
        server.faults.clear()
    for rule in body.get("rules", ()):
        given = dict(rule)
        server.faults.schedule(given.pop("kind"), **given)
    return {"faults": server.faults.describe()}


def _churn(server: SimulatorServer, body: Mapping[str, Any]) -> dict[str, Any]:
    server.service.churn = Churn(**body) if body else None
    churn = server.service.churn
    return {"churn": churn.describe() if churn else None}


def _advance(server: SimulatorServer, body: Mapping[str, Any]) -> dict[str, Any]:
    events = server.life().advance(hours=float(body.get("hours", 24)))
    return {"events": dict(events), "account_time": server.account.clock()}


def _configure(server: SimulatorServer, body: Mapping[str, Any]) -> dict[str, Any]:
    server.configure(**body)
    return {"done": True}


_READERS = {"status": _status, "mark": _mark, "truth": _truth, "log": _log, "list": _list}
_WRITERS = {
    "mutate": _mutate,
    "faults": _faults,
    "churn": _churn,
    "advance": _advance,
    "configure": _configure,
}
