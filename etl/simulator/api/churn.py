"""What happens to the account between the requests of a reader."""

from __future__ import annotations

import random
from typing import Any

from etl.simulator.account.account import Account
from etl.simulator.api.call import RequestRecord

MODES = ("uniform", "hostile")
_NEXT_STATUS = {0: 1, 1: 2, 2: 3}


class Churn:
    """Deletions, insertions and changes after each list request, by expected number.

    ``uniform`` deletes and changes anywhere; of the new tokens one in three lies in the past.
    ``hostile`` aims at a reader that walks page by page: it deletes only what has been read
    already (for each such deletion one unread token slips over the next page's edge) and inserts
    anywhere, so that the count does not show it.
    """

    def __init__(
        self,
        *,
        delete: float = 0.0,
        insert: float = 0.0,
        change: float = 0.0,
        mode: str = "uniform",
        seed: int = 0,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"there is no churn mode {mode!r}; use one of {', '.join(MODES)}")
        if min(delete, insert, change) < 0:
            raise ValueError("a number of events per request cannot be negative")
        self.delete, self.insert, self.change, self.mode = delete, insert, change, mode
        self.counts = {"delete": 0, "insert": 0, "change": 0}
        self._rng = random.Random(f"{seed}/churn")  # noqa: S311
        self._read_low: int | None = None
        self._read_high: int | None = None

    def describe(self) -> dict[str, Any]:
        return {
            "delete": self.delete,
            "insert": self.insert,
            "change": self.change,
            "mode": self.mode,
            "counts": dict(self.counts),
        }

    def happen(self, account: Account, record: RequestRecord) -> None:
        """The events after one answered request."""
        self._note_read(record)
        events = ["delete"] * self._draw(self.delete)
        events += ["insert"] * self._draw(self.insert)
        events += ["change"] * self._draw(self.change)
        self._rng.shuffle(events)
        for event in events:
            if event == "delete":
                self._delete_one(account)
            elif event == "insert":
                self._insert_one(account)
            else:
                self._change_one(account)

    def _draw(self, expected: float) -> int:
        whole = int(expected)
        return whole + (self._rng.random() < expected - whole)

    def _note_read(self, record: RequestRecord) -> None:
        """What has been read, as a range of keys; a reader that starts again starts a new one."""
        if record.first_key is None or record.last_key is None:
            return
        low, high = sorted((record.first_key, record.last_key))
        if record.page_index == 1 or self._read_low is None or self._read_high is None:
            self._read_low, self._read_high = low, high
        else:
            self._read_low = min(self._read_low, low)
            self._read_high = max(self._read_high, high)

    def _delete_one(self, account: Account) -> None:
        low, high = 0, len(account)
        if self.mode == "hostile" and self._read_low is not None and self._read_high is not None:
            low = account.line.offset_of_key(self._read_low)
            high = account.line.offset_of_key(self._read_high)
        if low >= high:
            return
        token = account.line[self._rng.randrange(low, high)]
        account.delete(token.id, token.created_at)
        self.counts["delete"] += 1

    def _insert_one(self, account: Account) -> None:
        rng = self._rng
        created_at = int(account.clock())
        in_the_past = 0.5 if self.mode == "hostile" else 1 / 3
        if len(account) and rng.random() < in_the_past:
            near = account.line[rng.randrange(len(account))].created_at
            # The account of the captures has a zero date in it; no upload is made in the year 0.
            # One in three shares its second with a token.
            step = 0 if rng.random() < 1 / 3 else rng.randrange(-30, 31)
            created_at = min(max(near, 1) + step, created_at)
        account.insert(new_token(rng, created_at))
        self.counts["insert"] += 1

    def _change_one(self, account: Account) -> None:
        if not len(account):
            return
        token = account.line[self._rng.randrange(len(account))]
        status = _NEXT_STATUS.get(token.status)
        if status is None:
            fields: dict[str, Any] = {"attachedObjectId": f"0_{self._rng.getrandbits(40):010x}"}
        else:
            fields = {"status": status, "uploadedFileSize": str(self._rng.randrange(1, 10**9))}
        account.change(token.id, fields)
        self.counts["change"] += 1


def new_token(rng: random.Random, created_at: int) -> dict[str, Any]:
    """The fields of an upload that has just begun."""
    number = rng.getrandbits(128)
    return {
        "id": f"0_{number:032x}",
        "userId": f"user{number % 97}@example.com",
        "status": 0,
        "fileName": f"upload {number % 100_000}.mp4",
        "createdAt": created_at,
        "updatedAt": created_at,
    }
