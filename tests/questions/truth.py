"""What the warehouse must say about the known accounts, worked out from the lives without any SQL.

``versions()`` is what the runs must have seen: the states of a life at each published run,
each with the interval in which it began.  The expectations of the questions start from here or
from the lives themselves.  Functions speak of the first account unless they are given another.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, tzinfo
from functools import cache, wraps
from itertools import zip_longest
from typing import Final, Protocol, TypeVar

from tests.questions.accounts import ACCOUNT, LivedAccount, Night
from tests.questions.known_account import INCREMENTAL_PAGE_SIZE
from tests.questions.lives import (
    CLOSED,
    ERROR,
    FULL,
    PARTIAL,
    PENDING,
    TIMED_OUT,
    UNKNOWN_CODE,
    Life,
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
BUCKETS: Final = (
    ("< 1 MB", 10**6),
    ("1-10 MB", 10**7),
    ("10-100 MB", 10**8),
    ("100 MB-1 GB", 10**9),
    ("1-10 GB", 10**10),
    ("> 10 GB", 10**15),
)
"""Upper limits, far from every size of the accounts."""


@dataclass(frozen=True, slots=True)
class Version:
    """A state of a token as the warehouse must hold it."""

    life: Life
    version: int
    kind: str
    listed: bool
    state: State
    """Of an absence: the last one seen."""
    user_id: str | None
    """The last name seen: one that is no longer told is kept."""
    night: Night
    observed_at: datetime
    happened_after: datetime
    """When the last walk that saw the state before began; at first sight its creation."""
    last_listed_at: datetime | None = None
    """Of an absence: the last moment at which it was seen."""

    @property
    def token_id(self) -> str:
        return self.life.token_id

    @property
    def status(self) -> int:
        return self.state.status

    @property
    def received(self) -> int | None:
        return self.state.received

    @property
    def updated_at(self) -> datetime:
        return self.state.updated_at

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


@dataclass(frozen=True, slots=True)
class Look:
    """What a published run could see."""

    night: Night
    walk_began_at: datetime
    """A run that goes on with another's walk began with that one."""
    rejecting: bool
    since: datetime | None
    """An incremental run reads all tokens created after this, and the open ones."""
    edges: frozenset[str]
    """Tokens at the edge of a hole or of the last page: seen, but not certified."""


Told_co = TypeVar("Told_co", covariant=True)


class OfAccount(Protocol[Told_co]):
    """A function that speaks of the first account, unless it is given another."""

    def __call__(self, account: LivedAccount = ...) -> Told_co: ...


def once(function: OfAccount[Told_co]) -> OfAccount[Told_co]:
    """Decorate a function: it is worked out once for each account, named or not."""
    kept = cache(function)

    @wraps(function)
    def told(account: LivedAccount = ACCOUNT) -> Told_co:
        return kept(account)

    return told


@once
def looks(account: LivedAccount = ACCOUNT) -> tuple[Look, ...]:
    return tuple(_look(account, night) for night in account.published)


def _look(account: LivedAccount, night: Night) -> Look:
    began = night if night.resumed_from is None else account.night(night.resumed_from)
    since, edges = None, set[str]()
    if night.mode == "incremental":
        edge = _listed_at(night, account)[-INCREMENTAL_PAGE_SIZE]
        since = edge.created_at
        edges = {edge.token_id}
    elif night.unreadable is not None:
        ids = [life.token_id for life in _listed_at(night, account)]
        at = ids.index(night.unreadable)
        edges = {*ids[at - 1 : at], *ids[at + 1 : at + 2]}
    return Look(night, began.began_at, account.is_rejecting(night), since, frozenset(edges))


def _listed_at(night: Night, account: LivedAccount) -> list[Life]:
    return [life for life in account.lives if life.state_at(night.began_at) is not None]


@once
def versions(account: LivedAccount = ACCOUNT) -> tuple[Version, ...]:
    """All versions, token by token, oldest first."""
    seen = looks(account)
    began = [look.night.began_at for look in seen]
    return tuple(
        version
        for life in account.lives
        for version in _versions_of(life, seen[bisect_left(began, life.created_at) :])
    )


def _versions_of(life: Life, looks: Iterable[Look]) -> list[Version]:
    """``looks``: those since its creation."""
    found: list[Version] = []
    seen_by = life.created_at  # when the walk began that saw it last
    for look in looks:
        night, known = look.night, found[-1] if found else None
        was_open = known is not None and known.is_open
        state = life.state_at(night.began_at)
        if life.token_id in (night.unreadable, night.odd) or (state is None and known is None):
            continue
        in_reach = look.since is None or life.created_at > look.since
        is_open = state is not None and state.status in OPEN
        if not (in_reach or was_open or is_open or life.token_id in look.edges):
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
        elif known is None or not known.listed or _differs(state, known):
            kind = "relisted" if known is not None and not known.listed else "changed"
            kept = known.user_id if known is not None else None
            found.append(
                Version(
                    life,
                    len(found) + 1,
                    kind if known is not None else "first_seen",
                    True,
                    replace(state, user_id=None),
                    kept if state.user_id is None else state.user_id,
                    night,
                    night.observed_at,
                    happened_after=seen_by,
                )
            )
        latest = found[-1]
        certified = (in_reach or latest.is_open) and life.token_id not in look.edges
        # A rejected row may have been the return of a token that is not listed.
        unseen = not latest.listed and look.rejecting
        if latest.night == night or (certified and not unseen):
            seen_by = look.walk_began_at
    return found


def _differs(state: State, known: Version) -> bool:
    if state.user_id not in (None, known.user_id):
        return True
    told = known.state
    return (state.status, state.received, state.updated_at) != (
        told.status,
        told.received,
        told.updated_at,
    )


@once
def histories(account: LivedAccount = ACCOUNT) -> dict[str, tuple[Version, ...]]:
    """The versions of each token that was ever seen."""
    found: dict[str, list[Version]] = {}
    for version in versions(account):
        found.setdefault(version.token_id, []).append(version)
    return {token_id: tuple(history) for token_id, history in found.items()}


def history_of(token_id: str, account: LivedAccount = ACCOUNT) -> tuple[Version, ...]:
    return histories(account)[token_id]


@once
def current(account: LivedAccount = ACCOUNT) -> dict[str, Version]:
    """The latest version of each token that was ever seen."""
    return {token_id: history[-1] for token_id, history in histories(account).items()}


@cache
def as_of(when: datetime, account: LivedAccount = ACCOUNT) -> dict[str, Version]:
    """What the warehouse said at a moment."""
    return {
        version.token_id: version
        for version in versions(account)
        if version.night.published_at <= when
    }


def happened_by(when: datetime, account: LivedAccount = ACCOUNT) -> dict[str, Version]:
    """The last version of each token that had happened by then, by Kaltura's times."""
    found: dict[str, Version] = {}
    for history in histories(account).values():
        before = None
        for version in history:
            at = version.observed_at
            if before is None:
                at = version.life.created_at
            elif version.listed and version.updated_at != before.updated_at:
                at = version.updated_at
            if at <= when:
                found[version.token_id] = version
            before = version
    return found


def open_seen_at(when: datetime | None = None, account: LivedAccount = ACCOUNT) -> datetime:
    """When the last published walk began, by that moment, that read all open tokens."""
    return max(
        look.walk_began_at
        for look in looks(account)
        if (when is None or look.night.published_at <= when)
    )


def last_seen_so(earlier: Version, later: Version, account: LivedAccount = ACCOUNT) -> datetime:
    """When the last walk began that read all open tokens, and saw this state of the token."""
    if earlier.last_listed_at is not None:
        return earlier.last_listed_at
    return max(
        look.walk_began_at
        for look in looks(account)
        if earlier.night.published_at <= look.night.published_at < later.night.published_at
        and (look.night == earlier.night or look.night.unreadable is None)
        and look.night.odd != earlier.token_id
    )


def stuck_at(when: datetime, account: LivedAccount = ACCOUNT) -> list[tuple[Life, State, datetime]]:
    """The uploads that were open and had not moved for 24 hours, and since when: by the lives."""
    found = []
    for life in account.lives:
        state = life.state_at(when)
        if state is not None and state.status in OPEN:
            moved_at = max(life.created_at, state.updated_at)
            if when - moved_at >= timedelta(hours=24):
                found.append((life, state, moved_at))
    return found


def status_at(when: datetime, account: LivedAccount = ACCOUNT) -> dict[str, str]:
    """What each token had become before a moment, by the best estimates that there are now.

    One that existed and was only seen later counts as PENDING.
    """
    found: dict[str, str] = {}
    for before, after in status_changes(None, account):
        if before is None and after.life.created_at < when:
            found[after.token_id] = "PENDING"
        if after.happened_at < when:
            found[after.token_id] = after.seen_as
    return found


def bucket_of(size: int | None) -> str:
    if size is None:
        return "unknown"
    return next(name for name, limit in BUCKETS if size < limit)


def outcome_of(token_id: str, account: LivedAccount = ACCOUNT) -> str:
    """What became of an upload, by what was last seen of it."""
    *_, last = seen = history_of(token_id, account)
    if any(version.status == CLOSED for version in seen):
        return "succeeded"
    if last.status in FAILED:
        return "failed"
    if not last.listed:
        return "deleted"
    if last.is_open and last.moved_at < open_seen_at(None, account) - timedelta(days=7):
        return "abandoned"
    return "still_open"


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of an upload that holds, after which it has not been seen otherwise."""

    version: Version
    """The first that was seen of it."""
    at: datetime
    """The best estimate, between the next."""
    after: datetime
    """When the last look began that saw it otherwise."""


def is_mature(version: Version, account: LivedAccount = ACCOUNT) -> bool:
    """Whether the outcome of the upload counts as final; ``version`` is its latest."""
    is_old = version.moved_at < open_seen_at(None, account) - timedelta(days=7)
    return is_old or outcome_of(version.token_id, account) != "still_open"


def bytes_by_day(zone: tzinfo, account: LivedAccount = ACCOUNT) -> Counter[date]:
    """The bytes that arrived each day, by the best estimates: what grew, on its ``updated_at``."""
    arrived = Counter[date]()
    for history in histories(account).values():
        received = 0
        for version in history:
            more = (version.received or 0) - received
            arrived[version.updated_at.astimezone(zone).date()] += more
            received += more
    return arrived


def failure_of(token_id: str, account: LivedAccount = ACCOUNT) -> Failure:
    """Of a failed upload.

    One that failed while it was not listed may have done so since it was last listed.
    """
    before, failed = None, None
    for version in history_of(token_id, account):
        if version.status not in FAILED:
            before, failed = version, None
        elif failed is None:
            failed = version
    assert failed is not None
    if before is None or before.listed:
        return Failure(failed, failed.happened_at, failed.happened_after)
    assert before.last_listed_at is not None
    known = replace(failed, happened_after=before.last_listed_at)
    return Failure(failed, known.happened_at, known.happened_after)


def time_to_complete(token_id: str, account: LivedAccount = ACCOUNT) -> timedelta | None:
    """From creation to CLOSED, if it got there."""
    seen = history_of(token_id, account)
    closed = [version.updated_at for version in seen if version.status == CLOSED]
    return min(closed) - seen[0].life.created_at if closed else None


def status_changes(
    token_id: str | None = None, account: LivedAccount = ACCOUNT
) -> list[tuple[Version | None, Version]]:
    """Each change of status or presence: what was before (None at first sight), and after."""
    changes: list[tuple[Version | None, Version]] = []
    for version in versions(account) if token_id is None else history_of(token_id, account):
        before = changes[-1][1] if changes and version.version > 1 else None
        if before is None or before.seen_as != version.seen_as:
            changes.append((before, version))
    return changes


@dataclass(slots=True)
class Stay:
    """How long a token was in an open status that is over, in one or in more stretches."""

    seen: bool = False
    at_least: timedelta = timedelta()
    at_most: timedelta = timedelta()
    estimated: timedelta = timedelta()


def stay_in(token_id: str, status: int, account: LivedAccount = ACCOUNT) -> Stay | None:
    """None if the token was not in it, or still is; a status may be passed without being seen."""
    changes = status_changes(token_id, account)
    if changes[-1][1].is_open and changes[-1][1].status == status:
        return None
    stay, passed = Stay(), False
    for (before, now), (_, following) in zip_longest(changes, changes[1:], fillvalue=(None, None)):
        assert now is not None
        first = -1 if before is None else before.status if before.is_open else CLOSED
        if before is not None and not before.listed and before.status <= CLOSED:
            first = before.status - 1  # listed again as it had been, before a run saw it
        if before is not None and before.status in FAILED and now.status in (FULL, CLOSED):
            first = PENDING  # it went on
        last = (now.status if now.status <= CLOSED else CLOSED) if now.listed else CLOSED + 1
        if now.is_open and now.status == status:
            assert following is not None
            passed = stay.seen = True
            begun = now.happened_after if before is None else now.happened_at
            ended = following.happened_at if following.listed else following.observed_at
            stay.at_least += max(following.happened_after - now.observed_at, timedelta())
            stay.at_most += following.observed_at - now.happened_after
            stay.estimated += ended - begun
        elif first < status < last:
            passed = True
            stay.at_most += now.observed_at - now.happened_after
            stay.estimated += now.happened_at - now.happened_after
    return stay if passed else None


def quantile(values: Iterable[timedelta], share: float) -> timedelta:
    """Interpolated, as ``percentile_cont``."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
