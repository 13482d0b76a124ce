"""The truth about a simulated account.

``TruthLog`` knows to the microsecond when each token was in which state, by the account's own
clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from etl.simulator import SimulatorServer
from tests.support.model import Row

NOT_LISTED = "NOT_LISTED"
Label = int | str | None
"""What the history of statuses tells apart: a status code (None: the service sent none), or
``NOT_LISTED``."""


class State(NamedTuple):
    """From mutation ``since`` on; ``body`` is None while the token is not listed."""

    since: int
    body: bytes | None


class Transition(NamedTuple):
    at: float
    """Unix seconds by the account's clock."""
    label: Label


class TruthLog:
    """Notes the account's own time of every mutation.  Make it before anything happens."""

    def __init__(self, server: SimulatorServer) -> None:
        self.account = server.account
        self.times: list[float] = []
        number_mutation = self.account._next_mutation

        def noted() -> int:
            self.times.append(self.account.clock())
            return number_mutation()

        assert self.account.mark == 0
        self.account._next_mutation = noted  # type: ignore[method-assign]

    def timelines(self) -> dict[str, list[State]]:
        """For each token ever listed its states, oldest first."""
        bodies: dict[str, list[tuple[int, bytes]]] = {}
        for change in self.account.superseded:
            bodies.setdefault(change.token_id, []).append((change.until, change.body))
        stretches: dict[str, list[tuple[int, int | None, bytes]]] = {}
        for token in self.account.line:
            stretches.setdefault(token.id, []).append((token.listed_since, None, token.body))
        for past in self.account.departed:
            known = stretches.setdefault(past.token.id, [])
            known.append((past.since, past.until, past.token.body))
        return {
            token_id: list(_states(sorted(known), sorted(bodies.get(token_id, []))))
            for token_id, known in stretches.items()
        }

    def transitions(self, states: list[State]) -> list[Transition]:
        """When the status or the presence changed."""
        found: list[Transition] = []
        for since, body in states:
            fields = None if body is None else decoded(body)
            label: Label = NOT_LISTED if fields is None else fields["status"]
            if found and found[-1].label == label:
                continue
            if since:
                at = self.times[since - 1]
            else:
                assert fields is not None
                at = fields["createdAt"] if label == 0 else fields["updatedAt"]
            found.append(Transition(at, label))
        return found


def _states(
    stretches: list[tuple[int, int | None, bytes]], bodies: list[tuple[int, bytes]]
) -> Iterator[State]:
    for since, until, last_body in stretches:
        start = since
        for end, body in bodies:
            if since < end and (until is None or end < until):
                yield State(start, body)
                start = end
        yield State(start, last_body)
        if until is not None:
            yield State(until, None)


_DECODED: dict[bytes, Row] = {}


def decoded(body: bytes) -> Row:
    """A token's JSON object; decoded once."""
    if body not in _DECODED:
        _DECODED[body] = msgspec.json.decode(body, type=dict[str, Any])
    return _DECODED[body]


def during(states: list[State], first_mark: int, last_mark: int) -> list[bytes | None]:
    """The states that a token had between two marks; None also for a token not yet there."""
    marks = [state.since for state in states]
    begin, end = bisect_right(marks, first_mark), bisect_right(marks, last_mark)
    some = [state.body for state in states[max(begin - 1, 0) : end]]
    return some if begin else [None, *some]
