"""Faults of one page: right in form, wrong in content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from etl.simulator.account.encode import encode_json
from etl.simulator.api.errors import internal_server_error
from etl.simulator.api.reply import ListReply, ResponseProfile
from etl.simulator.faults import Fault

MORE_ROWS = 7


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
            raise internal_server_error()
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


def _make_stale(reply: ListReply) -> ListReply:
    kept = [row for number, row in enumerate(reply.rows) if number % 3 != 1]
    return replace(reply, total=max(reply.total - len(reply.rows) + len(kept), 0), rows=kept)


_CHANGES: dict[str, Callable[[ListReply], ListReply]] = {
    "memcache-down": lambda reply: reply,
    "unordered-page": _reorder,
    "total-wrong": lambda reply: replace(reply, total=reply.total * 2 + 1_234),
    "total-missing": lambda reply: replace(reply, total=...),
    "total-string": lambda reply: replace(reply, total=str(reply.total)),
    "foreign-partner": _add_foreign_partner,
    "stale-cached": _make_stale,
}
