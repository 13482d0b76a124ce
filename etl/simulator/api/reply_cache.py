"""Kaltura's response cache, as far as a client can see it.

Errors for a session that is missing or no good are kept for 120 s under a key *without* the
session string, so that one client can be shown another's; replies to an anonymous (widget)
session for 600 s.  Replies to an admin session are never kept.  The parameter ``nocache``, with
any value, goes round it.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from etl.simulator.api.php import to_text

ERROR_SECONDS, ANONYMOUS_SECONDS = 120, 600
_CAPACITY = 1_000
_NOT_IN_KEY = frozenset({"ks", "clientTag", "nocache"})


class ReplyCache:
    """Kept replies by key; the oldest go first when there are many."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, Any]] = OrderedDict()

    def get(self, key: str, now: float) -> Any | None:
        """The kept reply, or None."""
        found = self._kept.get(key)
        if found is None or found[0] <= now:
            return None
        return found[1]

    def put(self, key: str, reply: Any, expires_at: float) -> None:
        self._kept[key] = (expires_at, reply)
        self._kept.move_to_end(key)
        while len(self._kept) > _CAPACITY:
            self._kept.popitem(last=False)


def cache_key(params: Mapping[str, Any], group: str) -> str:
    """Key of a call; ``group`` says what kind of session it came with."""
    known = {name: value for name, value in params.items() if name not in _NOT_IN_KEY}
    for name in ("service", "action"):
        known[name] = to_text(known.get(name)).lower()
    text = json.dumps([group, _as_text(known)], sort_keys=True)
    return "cache_v3-" + hashlib.md5(text.encode("utf-8", "replace")).hexdigest()  # noqa: S324


def _as_text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _as_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return to_text(value)
