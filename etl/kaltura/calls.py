"""Single calls under the retry policy, without a session of their own; and the server's clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from etl.kaltura.client import KalturaClient
from etl.kaltura.replies import Reply, read_object
from etl.kaltura.retry import Call, RetryPolicy

T = TypeVar("T")


class Calls:
    """What a login needs.  Thread-safe: the clock's offset may come from any thread."""

    def __init__(
        self, client: KalturaClient, policy: RetryPolicy, monotonic: Callable[[], float]
    ) -> None:
        self.client = client
        self.policy = policy
        self.monotonic = monotonic
        self._server_offset: float | None = None

    def send(
        self,
        path: str,
        params: dict[str, object],
        read: Callable[[Reply], T],
        call: Call,
    ) -> T:
        def attempt(deadline_seconds: float) -> T:
            reply = self.client.post(path, params, deadline_seconds)
            self.policy.counters.count_reply(len(reply.body))
            if reply.server_time is not None and not reply.cached:
                self._server_offset = reply.server_time - reply.received_at.timestamp()
            return read(reply)

        return self.policy.call(attempt, call)

    def object(self, path: str, params: dict[str, object]) -> dict[str, Any]:
        return self.send(
            path,
            params,
            lambda reply: read_object(reply, self.client.scrubber),
            Call(facts={"path": path}),
        )

    def server_now(self) -> float:
        """Unix seconds by the server's clock as far as known, else by ours.

        A KS expires by the server's clock, so lifetimes are computed with it: a host with a wrong
        clock opens and renews sessions all the same.
        """
        return self.client.clock().timestamp() + self.server_clock_ahead_seconds()

    def server_clock_ahead_seconds(self) -> float:
        """How far the server's clock was ahead of ours in its last reply; 0 if unknown."""
        return self._server_offset or 0.0
