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
"""Open uploads younger than this when a life begins may still move."""


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
        self._due: list[tuple[float, int, str, str]] = []
        self._count = 0
        self._handlers: dict[str, Callable[[str], None]] = {
            "begin": self._begin,
            "progress": self._progress,
            "finish": self._finish,
            "attach": self._attach,
            "fail": self._fail,
            "time_out": self._time_out,
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
        for status, kind in enumerate(("progress", "finish", "attach")):
            for token in self.account.line:
                if token.status == status and self.now - token.created_at < STALE_SECONDS:
                    self._plan(kind, token.id, self._rng.uniform(30, 3 * 3600))

    def _set(self, token_id: str, event: str, fields: dict[str, Any]) -> bool:
        done = self.account.change(token_id, fields)
        self.counts[event] += done
        return done

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
                fields["fileSize"] = str(int(10 ** (4 + 6 * rng.random())))
            fields["autoFinalize"] = rng.random() < 0.2
            self.account.insert(fields)
            self.counts["begin"] += 1
            draw = rng.random()
            if draw < 0.90:
                self._plan("progress", token_id, rng.uniform(1, 600))
            elif draw < 0.93:
                self._plan("delete", token_id, rng.uniform(60, DAY))
            # The others stall before the first byte.
        self._plan("begin", "", self._gap(self.uploads_per_day) * size)

    def _progress(self, token_id: str) -> None:
        rng = self._rng
        sent = int(10 ** (3 + 6 * rng.random()))
        if not self._set(token_id, "progress", {"status": 1, "uploadedFileSize": str(sent)}):
            return
        draw = rng.random()
        if draw < 0.88:
            self._plan("finish", token_id, rng.uniform(5, 3600))
        elif draw < 0.91:
            self._plan("fail", token_id, rng.uniform(5, 3600))
        elif draw < 0.94:
            self._plan("time_out", token_id, rng.uniform(6 * 3600, 2 * DAY))

    def _finish(self, token_id: str) -> None:
        found = self.account.find(token_id)
        if not found:
            return
        known = self.account.fields(found[0])
        size = known.get("fileSize") or known.get("uploadedFileSize") or "1"
        self._set(token_id, "finish", {"status": 2, "fileSize": size, "uploadedFileSize": size})
        if self._rng.random() < 0.93:
            self._plan("attach", token_id, self._rng.uniform(5, 7200))

    def _attach(self, token_id: str) -> None:
        entry = f"0_{self._rng.getrandbits(40):010x}"
        self._set(
            token_id,
            "attach",
            {"status": 3, "attachedObjectType": "entry", "attachedObjectId": entry},
        )

    def _fail(self, token_id: str) -> None:
        self._set(token_id, "fail", {"status": 6})

    def _time_out(self, token_id: str) -> None:
        self._set(token_id, "time_out", {"status": 4})

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
