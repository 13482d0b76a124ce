"""What the warehouse must say about the known account, worked out from the lives without any SQL.

``versions()`` is what the nights must have seen: the states of a life at each published night,
each with the interval in which it began.  The expectations of the questions start from here or
from the lives themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Final

from tests.questions.lives import (
    CLOSED,
    DORA_DELETED_AT,
    ERROR,
    FULL,
    LIVES,
    NIGHTS,
    PARTIAL,
    PENDING,
    TIMED_OUT,
    UNKNOWN_CODE,
    Life,
    Night,
    State,
)

NAMES: Final = {
    PENDING: "PENDING",
    PARTIAL: "PARTIAL_UPLOAD",
    FULL: "FULL_UPLOAD",
    CLOSED: "CLOSED",
    TIMED_OUT: "TIMED_OUT",
    ERROR: "ERROR",
    UNKNOWN_CODE: f"UNKNOWN_{UNKNOWN_CODE}",
}
NOT_LISTED: Final = "NOT_LISTED"
OPEN: Final = (PENDING, PARTIAL, FULL)
FAILED: Final = (TIMED_OUT, ERROR)
PUBLISHED: Final = tuple(night for night in NIGHTS if not night.failed)
BUCKETS: Final = (
    ("< 1 MB", 10**6),
    ("1-10 MB", 10**7),
    ("10-100 MB", 10**8),
    ("100 MB-1 GB", 10**9),
    ("1-10 GB", 10**10),
    ("> 10 GB", 10**15),
)
"""Upper limits, far from every size of the account."""


@dataclass(frozen=True, slots=True)
class Version:
    """A state of a token as the warehouse must hold it."""

    life: Life
    version: int
    kind: str
    listed: bool
    status: int
    received: int | None
    updated_at: datetime
    night: Night
    observed_at: datetime
    happened_after: datetime
    """When the last walk that saw the state before began; at first sight its creation."""
    last_listed_at: datetime | None = None
    """Of an absence: the last moment at which it was seen."""

    @property
    def status_name(self) -> str:
        return NAMES[self.status]

    @property
    def seen_as(self) -> str:
        """The name that the status history gives to it."""
        return self.status_name if self.listed else NOT_LISTED

    @property
    def moved_at(self) -> datetime:
        return max(self.life.created_at, self.updated_at)

    @property
    def is_open(self) -> bool:
        return self.listed and self.status in OPEN

    @property
    def happened_at(self) -> datetime:
        """The best estimate: Kaltura's own time where it may be, else the middle."""
        if self.listed and self.happened_after <= self.updated_at <= self.observed_at:
            return self.updated_at
        return self.happened_after + (self.observed_at - self.happened_after) / 2


def walk_began_at(night: Night) -> datetime:
    """A run that goes on with another's walk began with that one."""
    return night.began_at if night.resumed_from is None else NIGHTS[night.resumed_from - 1].began_at


@cache
def versions() -> tuple[Version, ...]:
    """All versions, by token in the order of the table, oldest first."""
    return tuple(version for life in LIVES for version in _versions_of(life))


def _versions_of(life: Life) -> list[Version]:
    found: list[Version] = []
    seen_by = life.created_at  # when the walk began that saw it last
    for night in PUBLISHED:
        if life.token_id in (night.unreadable, night.odd):
            continue
        state, observed_at = life.state_at(night.began_at), night.observed_at
        known = found[-1] if found else None
        if state is None and known is None:
            continue
        if state is None:
            assert known is not None
            if known.listed:
                found.append(
                    replace(
                        known,
                        version=known.version + 1,
                        kind="absent",
                        listed=False,
                        night=night,
                        observed_at=night.confirmed_at,
                        happened_after=seen_by,
                        last_listed_at=seen_by,
                    )
                )
        elif known is None or (True, state) != (known.listed, _state(known)):
            kind = "relisted" if known is not None and not known.listed else "changed"
            found.append(
                Version(
                    life,
                    len(found) + 1,
                    kind if known is not None else "first_seen",
                    True,
                    state.status,
                    state.received,
                    state.updated_at,
                    night,
                    observed_at,
                    happened_after=seen_by,
                )
            )
        seen_by = walk_began_at(night)
    return found


def _state(version: Version) -> State:
    return State(version.status, version.received, version.updated_at)


@cache
def current() -> dict[str, Version]:
    """The latest version of each token that was ever seen."""
    return {version.life.token_id: version for version in versions()}


def as_of(when: datetime) -> dict[str, Version]:
    """What the warehouse said at a moment."""
    return {
        version.life.token_id: version
        for version in versions()
        if version.night.published_at <= when
    }


def history_of(token_id: str) -> list[Version]:
    return [version for version in versions() if version.life.token_id == token_id]


def user_of(version: Version) -> str | None:
    """The user that the warehouse knows: one deleted before the first night that saw it is not."""
    life = version.life
    if life.user_id == "dora" and history_of(life.token_id)[0].night.began_at >= DORA_DELETED_AT:
        return None
    return life.user_id


def bucket_of(size: int | None) -> str:
    if size is None:
        return "unknown"
    return next(name for name, limit in BUCKETS if size < limit)


def outcome_of(token_id: str) -> str:
    """What became of an upload, by what was last seen of it."""
    *_, last = seen = history_of(token_id)
    if any(version.status == CLOSED for version in seen):
        return "succeeded"
    if last.status in FAILED:
        return "failed"
    if not last.listed:
        return "deleted"
    if last.is_open and last.moved_at < PUBLISHED[-1].began_at - timedelta(days=7):
        return "abandoned"
    return "still_open"


def time_to_complete(token_id: str) -> timedelta | None:
    """From creation to CLOSED, if it got there."""
    closed = [v.updated_at for v in history_of(token_id) if v.status == CLOSED]
    return min(closed) - history_of(token_id)[0].life.created_at if closed else None


def status_changes(token_id: str | None = None) -> list[tuple[Version | None, Version]]:
    """Each change of status or presence: what was before (None at first sight), and after."""
    changes: list[tuple[Version | None, Version]] = []
    for version in versions():
        before = changes[-1][1] if changes and version.version > 1 else None
        if before is None or before.seen_as != version.seen_as:
            changes.append((before, version))
    return [each for each in changes if token_id in (None, each[1].life.token_id)]


def quantile(values: Iterable[timedelta], share: float) -> timedelta:
    """Interpolated, as ``percentile_cont``."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
