"""A changing account: uploads begin, progress, finish, are attached, stall, fail, are deleted.

    >>> account = generate_account(5_000, seed=7)
    >>> life = Life(account, seed=7)
    >>> life.advance(hours=24)      # one day and night, the same for the same seed

The account's clock belongs to the life from then on: it stands still between the calls.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from etl.simulator.account.account import Account
from etl.simulator.account.generate import DAY, USERS, odd_or_plain_name

STALE_SECONDS = 2 * DAY
"""Of the open uploads younger than this when a life begins, half go on within hours."""
STALLED_DAYS = 14
"""Older ones may be taken up again, or given up, until they are this old."""
NEXT_STEP = {0: "progress", 1: "finish", 2: "attach"}
"""What an open upload of this status waits for."""


class Life:
    """The days and nights of one account.

    ``uploads_per_day`` new tokens come (about 4 % of the account if not given), busier by day.
    """

    def __init__(
        self,
        account: Account,
        *,
        seed: int = 0,
        uploads_per_day: float | None = None,
        deletions_per_day: float | None = None,
    ) -> None:
        self.account = account
        self.now = float(int(account.clock()))
        """The account's time, in Unix seconds."""
        self.counts: Counter[str] = Counter()
        """Events so far by kind."""
        size = len(account)
        self.uploads_per_day = (
            max(20.0, size * 0.04) if uploads_per_day is None else uploads_per_day
        )
        self.deletions_per_day = (
            max(2.0, size * 0.004) if deletions_per_day is None else deletions_per_day
        )
        self._rng = random.Random(f"{seed}/life")  # noqa: S311
        self._slow: set[str] = set()
        """Uploads taken up again after they had stalled: each further step takes a day or so."""
        self._due: list[tuple[float, int, str, str]] = []
        self._count = 0
        self._handlers: dict[str, Callable[[str], None]] = {
            "begin": self._begin,
            "progress": self._progress,
            "finish": self._finish,
            "attach": self._attach,
            "fail": self._fail,
            "time_out": self._time_out,
            "resume": self._resume,
            "delete": self._delete,
            "delete_old": self._delete_old,
            "touch_old": self._touch_old,
            "restore": self._restore,
        }
        account.clock = lambda: self.now
        self._adopt_open_uploads()
        self._plan("begin", "", self._gap(self.uploads_per_day))
        self._plan("delete_old", "", self._gap(self.deletions_per_day))
        self._plan("touch_old", "", self._gap(self.deletions_per_day))

    def advance(self, hours: float = 24.0) -> Counter[str]:
        """Simulate this time; returns the number of events in it, by kind."""
        before = Counter(self.counts)
        end = self.now + hours * 3600
        with self.account.lock:
            while self._due and self._due[0][0] <= end:
                when, _, kind, token_id = heapq.heappop(self._due)
                self.now = max(self.now, when)
                self._handlers[kind](token_id)
            self.now = end
        return self.counts - before

    def delete_some_user(self) -> str | None:
        """Delete a user who has tokens: their userId vanishes.  Returns the user, if any."""
        users = sorted({t.user_id for t in self.account.line if t.user_id is not None})
        if not users:
            return None
        user = self._rng.choice(users)
        self.account.delete_user(user)
        self.counts["delete_user"] += 1
        return user

    # ---- planning -----------------------------------------------------------------------------

    def _plan(self, kind: str, token_id: str, seconds: float) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, kind, token_id))

    def _gap(self, per_day: float) -> float:
        """Seconds until the next event, at this rate per day; nights are four times slower."""
        if per_day <= 0:
            return 1e12
        hour = int(self.now) // 3600 % 24
        busy = 0.4 if hour < 7 or hour > 20 else 1.45
        return self._rng.expovariate(per_day * busy / DAY)

    def _adopt_open_uploads(self) -> None:
        for token in self.account.line:
            age = self.now - token.created_at
            if token.status not in NEXT_STEP or age >= STALLED_DAYS * DAY:
                continue
            if age < STALE_SECONDS and self._rng.random() < 0.5:
                self._plan(NEXT_STEP[token.status], token.id, self._rng.uniform(30, 3 * 3600))
            else:
                self._stall(token.id)

    def _stall(self, token_id: str) -> None:
        """Nothing more comes, for days or for good: half of the users try again or give up."""
        draw = self._rng.random()
        if draw < 0.3:
            self._plan("resume", token_id, self._rng.uniform(DAY / 2, 4 * DAY))
        elif draw < 0.42:
            self._plan("time_out", token_id, self._rng.uniform(DAY, 5 * DAY))
        elif draw < 0.54:
            self._plan("delete", token_id, self._rng.uniform(DAY, 5 * DAY))

    def _step(self, kind: str, token_id: str, seconds_max: float) -> None:
        """Plan the next step of an upload, which takes a slow one a day or so."""
        if token_id in self._slow:
            self._plan(kind, token_id, self._rng.uniform(DAY / 4, 1.5 * DAY))
        else:
            self._plan(kind, token_id, self._rng.uniform(1, seconds_max))

    def _set(self, token_id: str, event: str, fields: dict[str, Any]) -> bool:
        done = self.account.change(token_id, fields)
        self.counts[event] += done
        return done

    def _open_status(self, token_id: str) -> int | None:
        """None: the upload has ended, or is not listed."""
        found = self.account.find(token_id)
        return found[0].status if found and found[0].status in NEXT_STEP else None

    def _move(self, token_id: str, event: str, status: int, fields: dict[str, Any]) -> bool:
        """Change an open upload; one that has ended meanwhile stays as it is."""
        if self._open_status(token_id) is None:
            return False
        return self._set(token_id, event, {"status": status, **fields})

    def _size_of(self, token_id: str) -> int:
        """Bytes announced; 0 if none were, or none that are a number."""
        found = self.account.find(token_id)
        announced = str(self.account.fields(found[0]).get("fileSize")) if found else ""
        return int(announced) if announced.isdecimal() else 0

    # ---- events -------------------------------------------------------------------------------

    def _begin(self, _: str) -> None:
        """An upload, or a batch of them in the same second."""
        rng = self._rng
        size = 1 if rng.random() < 0.9 else rng.randrange(2, 13)
        user = f"user{int(USERS * rng.random() ** 2)}@example.com" if rng.random() < 0.95 else None
        for _number in range(size):
            token_id = f"0_{rng.getrandbits(128):032x}"
            fields: dict[str, Any] = {"id": token_id, "status": 0, **odd_or_plain_name(rng)}
            if user is not None:
                fields["userId"] = user
            if rng.random() < 0.5:
                fields["fileSize"] = str(_some_size(rng))
            fields["autoFinalize"] = rng.random() < 0.2
            self.account.insert(fields)
            self.counts["begin"] += 1
            draw = rng.random()
            if draw < 0.95:
                self._step("progress", token_id, 60)
            elif draw < 0.965:
                self._plan("delete", token_id, rng.uniform(60, DAY))
            else:
                self._stall(token_id)
        self._plan("begin", "", self._gap(self.uploads_per_day) * size)

    def _progress(self, token_id: str) -> None:
        """The first bytes come; of a large file, more often the last ones do not."""
        rng = self._rng
        size = self._size_of(token_id) or _some_size(rng)
        fields = {"fileSize": str(size), "uploadedFileSize": str(int(size * rng.random()))}
        if not self._move(token_id, "progress", 1, fields):
            return
        large = max(0, len(str(size)) - 7)
        draw = rng.random()
        if draw < 0.01 + 0.01 * large:
            self._plan("fail", token_id, rng.uniform(5, 3600))
        elif draw < 0.02 + 0.02 * large:
            self._plan("time_out", token_id, rng.uniform(DAY / 4, 2 * DAY))
        elif draw < 0.05 + 0.02 * large:
            self._stall(token_id)
        else:
            self._step("finish", token_id, 120 + size / 1e6)

    def _finish(self, token_id: str) -> None:
        size = self._size_of(token_id) or 1
        fields = {"fileSize": str(size), "uploadedFileSize": str(size)}
        if not self._move(token_id, "finish", 2, fields):
            return
        if self._rng.random() < 0.98:
            self._step("attach", token_id, 60)
        else:
            self._stall(token_id)

    def _attach(self, token_id: str) -> None:
        entry = f"0_{self._rng.getrandbits(40):010x}"
        fields = {"attachedObjectType": "entry", "attachedObjectId": entry}
        self._move(token_id, "attach", 3, fields)

    def _resume(self, token_id: str) -> None:
        """The user tries again."""
        status = self._open_status(token_id)
        if status is not None:
            self._slow.add(token_id)
            self.counts["resume"] += 1
            self._handlers[NEXT_STEP[status]](token_id)

    def _fail(self, token_id: str) -> None:
        self._move(token_id, "fail", 6, {})

    def _time_out(self, token_id: str) -> None:
        self._move(token_id, "time_out", 4, {})

    def _delete(self, token_id: str) -> None:
        self.counts["delete"] += self.account.delete(token_id)

    def _delete_old(self, _: str) -> None:
        """A user cleans up, or the service purges; some tokens come back."""
        if len(self.account):
            token = self.account.line[self._rng.randrange(len(self.account))]
            self._delete(token.id)
            if self._rng.random() < 0.03:
                self._plan("restore", token.id, self._rng.uniform(DAY, 3 * DAY))
        self._plan("delete_old", "", self._gap(self.deletions_per_day))

    def _touch_old(self, _: str) -> None:
        """An old token changes: saved again, attached to something else, or closed at last."""
        if len(self.account):
            token = self.account.line[self._rng.randrange(len(self.account))]
            if token.status in (0, 1, 2):
                self._set(token.id, "close_old", {"status": 3})
            else:
                entry = f"0_{self._rng.getrandbits(40):010x}"
                self._set(token.id, "reattach", {"attachedObjectId": entry})
        self._plan("touch_old", "", self._gap(self.deletions_per_day))

    def _restore(self, token_id: str) -> None:
        self.counts["restore"] += self.account.undelete(token_id)


def _some_size(rng: random.Random) -> int:
    """Bytes: as many files of ten kilobytes as of ten gigabytes."""
    return int(10 ** (4 + 6 * rng.random()))
