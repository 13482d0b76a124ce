"""Faults of one reply: an error in its place, a page wrong in content, JSON wrong in form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from etl.simulator.account.encode import encode_json
from etl.simulator.api import errors
from etl.simulator.api.errors import ApiError
from etl.simulator.api.reply import ListReply, ResponseProfile
from etl.simulator.faults import Fault, RequestInfo

MORE_ROWS = 7
_KS_REASONS = {
    "ks-expired": "EXPIRED",
    "ks-logout": "LOGOUT",
    "ks-actions-limit": "EXCEEDED_ACTIONS_LIMIT",
    "ks-restricted-ip": "EXCEEDED_RESTRICTED_IP",
}


def api_error(fault: Fault, info: RequestInfo) -> ApiError:
    """The error of a fault of the group ``api``."""
    if fault.kind.startswith("ks-"):
        return errors.invalid_ks(_KS_REASONS.get(fault.kind) or str(info.params.get("ks", "")))
    if fault.kind == "unknown-error":
        args = dict(fault.options.get("args", {}))
        code = str(fault.options.get("code", "FLUX_CAPACITOR_EMPTY"))
        return ApiError(code, str(fault.options.get("message", "Out of flux")), args)
    make: dict[str, Callable[[], ApiError]] = {
        "action-blocked": lambda: errors.action_blocked(info.service, info.action),
        "service-forbidden": lambda: errors.service_forbidden(info.service, info.action),
        "start-session-error": lambda: errors.start_session_error(info.params.get("partnerId")),
        "internal-database-error": errors.internal_database_error,
        "internal-server-error": errors.internal_server_error,
    }
    return make[fault.kind]()


def apply_reply_fault(fault: Fault, body: bytes) -> bytes:
    """The JSON of a reply with its fault."""
    if fault.kind == "truncated-json":
        return body[: max(len(body) * 3 // 5, 1)]
    if fault.kind == "bom":
        return b"\xef\xbb\xbf" + body
    if fault.kind == "other-json":
        return bytes(fault.options.get("body", b"[1,2,3]"))
    return body


def rows_beyond(fault: Fault | None) -> int:
    """How many rows more than asked the page gets."""
    return MORE_ROWS if fault is not None and fault.kind == "more-rows" else 0


def apply_page_fault(
    fault: Fault | None, reply: ListReply, profile: ResponseProfile | None
) -> ListReply:
    """The page with its fault."""
    if fault is None or fault.kind not in _CHANGES:
        return reply
    if fault.kind == "memcache-down" and (profile is None or profile.shows("autoFinalize")):
        if reply.rows:
            raise errors.internal_server_error()
        return reply
    return _CHANGES[fault.kind](reply)


def _reorder(reply: ListReply) -> ListReply:
    middle = len(reply.rows) // 2
    return replace(reply, rows=reply.rows[middle:] + reply.rows[:middle])


def _add_foreign_partner(reply: ListReply) -> ListReply:
    if not reply.rows:
        return reply
    rows = list(reply.rows)
    middle = len(rows) // 2
    known = msgspec.json.decode(rows[middle])
    known["partnerId"] = int(known.get("partnerId", 0)) + 1
    rows[middle] = encode_json(known)
    return replace(reply, rows=rows)


def _repeat_a_row(reply: ListReply) -> ListReply:
    middle = len(reply.rows) // 2
    return replace(reply, rows=[*reply.rows[: middle + 1], *reply.rows[middle:]])


def _make_stale(reply: ListReply) -> ListReply:
    kept = [row for number, row in enumerate(reply.rows) if number % 3 != 1]
    return replace(reply, total=max(reply.total - len(reply.rows) + len(kept), 0), rows=kept)


_CHANGES: dict[str, Callable[[ListReply], ListReply]] = {
    "memcache-down": lambda reply: reply,
    "unordered-page": _reorder,
    "short-page": lambda reply: replace(reply, rows=reply.rows[: (len(reply.rows) + 1) // 2]),
    "empty-page": lambda reply: replace(reply, total=0, rows=[]),
    "repeated-row": _repeat_a_row,
    "total-zero": lambda reply: replace(reply, total=0),
    "total-wrong": lambda reply: replace(reply, total=reply.total * 2 + 1_234),
    "total-missing": lambda reply: replace(reply, total=...),
    "total-string": lambda reply: replace(reply, total=str(reply.total)),
    "foreign-partner": _add_foreign_partner,
    "stale-cached": _make_stale,
}
