"""An account in memory that changes between any two requests, and shows it in every odd way.

It serves what a walk asks for as pages that are decoded like real replies.  Everything follows from
a seed.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from etl.tokens.decode import decode_rows
from etl.tokens.page import Page, PageFacts, page_of
from etl.tokens.token import OPEN_STATUSES
from etl.walk import PageRequest

PARTNER: Final = 102
USERS: Final = ("anna", "otto", "berta", "")
AGE_SECONDS: Final = 100_000
"""How long ago the oldest token was made."""
SECONDS: Final = 90
"""The createdAt of all tokens lie in so many seconds, so that many share one."""
TOKENS_AT_MOST: Final = 50
Fields = dict[str, Any]
"""A row as the service has it."""
BAD_VALUES: Final[list[tuple[str, Any]]] = [
    # A known status is kept with all else, the value of another column alone.
    *[("status", "none"), ("status", True), ("updatedAt", 0), ("fileSize", "big")],
    *[
        ("fileName", None),
        ("userId", ["anna"]),
        ("note", json.loads("[" * 70 + "]" * 70)),
        ("autoFinalize", "yes"),
    ],
]


@dataclass
class MovingAccount:
    """``restless`` is how many changes are expected between two requests."""

    seed: int
    tokens: int
    page_cap: int
    restless: float
    rows: list[Fields] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)
    """Pages with a row of these tokens fail."""

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed}/account")
        self.first_second = int(datetime.now(UTC).timestamp()) - AGE_SECONDS
        self.made = 0
        self.gone: list[Fields] = []
        self.twins: set[str] = set()
        """Tokens that have had several rows."""
        self._flickers: list[Callable[[], None]] = []
        """What will be again as it was."""
        self._shuffles = self.rng.random() < 0.3
        self._rejects = self.rng.random() < 0.4
        self._twins = self.rng.random() < 0.4
        self._fails = self.rng.random() < 0.2
        for _ in range(self.tokens):
            self._make(1)

    def live(self, changes: float | None = None) -> None:
        """Let so many changes happen, or as many as between two requests."""
        expected = self.restless if changes is None else changes
        if self.rng.random() < 0.5:
            while self._flickers:
                self._flickers.pop()()
        for _ in range(int(expected) + (self.rng.random() < expected % 1)):
            self.rng.choice(self._possible_changes())()

    def page(self, request: PageRequest, *, open_only: bool = False) -> Page | None:
        """The page that is asked for; None if the service fails on it."""
        self.live()
        rows = self._in_order(open_only)
        if request.descending:
            rows.reverse()
        size = min(request.size, self.page_cap)
        shown = rows[(request.index - 1) * size :][:size]
        if any(row["id"] in self.poison for row in shown):
            return None
        asked = {"orderBy": "-createdAt" if request.descending else "+createdAt"}
        if open_only:
            asked["statusIn"] = "0,1,2"
        page = self._page_of(
            shown, total=len(rows), asked=asked, page_index=request.index, page_size=request.size
        )
        page.open_only = open_only
        return page

    def answer(self, token_ids: Sequence[str]) -> Page:
        """The answer to a lookup."""
        self.live()
        ids = sorted(token_ids)
        rows = [row for row in self._in_order() if row["id"] in ids]
        page = self._page_of(rows[:500], total=len(rows), asked={"idIn": ",".join(ids)})
        page.asked = tuple(ids)
        return page

    def ids(self) -> list[str]:
        """The ids of all listed tokens, and of some that never were."""
        return [*dict.fromkeys(row["id"] for row in self.rows), "never", "seen"]

    def _in_order(self, open_only: bool = False) -> list[Fields]:
        rows = [row for row in self.rows if not open_only or row["status"] in OPEN_STATUSES]
        if self._shuffles:
            self.rng.shuffle(rows)
        return sorted(rows, key=lambda row: int(row["createdAt"]))

    def _page_of(
        self,
        rows: Sequence[Fields],
        *,
        total: int,
        asked: dict[str, str],
        page_index: int = 1,
        page_size: int = 500,
    ) -> Page:
        now = datetime.now(UTC)
        raw = [msgspec.Raw(wire(row, self.rng)) for row in rows]
        body = b"[" + b",".join(map(bytes, raw)) + b"]"
        facts = PageFacts(
            page_index=page_index,
            page_size=page_size,
            filter=msgspec.json.encode(asked, order="sorted").decode(),
            requested_at=now - timedelta(microseconds=1),
            received_at=now,
            total_count=total,
            rows=len(rows),
            body_sha256=hashlib.sha256(body).digest(),
        )
        return page_of(facts, body, raw, decode_rows(raw, partner_id=PARTNER, now=now))

    # --- what can happen -------------------------------------------------------------------------

    def _possible_changes(self) -> list[Callable[[], None]]:
        rng = self.rng
        if not self.rows:
            return [lambda: self._make(rng.randint(1, 9))]
        row = rng.choice(self.rows)
        possible: list[Callable[[], None]] = [
            lambda: self._make(1),
            lambda: self._delete(row),
            lambda: self._delete(row),
            lambda: self._touch(row, status=rng.randrange(7)),
            lambda: self._touch(row, fileName=rng.choice(("film.mp4", "é,\"'\n", "", None))),
            lambda: self._touch(row, fileSize=rng.randrange(3), uploadedFileSize=rng.randrange(3)),
            lambda: self._touch(row, attachedObjectId=rng.choice(("0_x", None))),
            lambda: self._touch(row, note=rng.choice((1, 1.5, "é", {"b": [1, None], "a": {}}))),
            lambda: self._touch(row, userId=rng.choice(USERS)),
            # Without a trace in updatedAt.
            lambda: row.update(status=rng.randrange(7)),
            # Volatile: no reason for a version.
            lambda: row.update(autoFinalize=rng.choice((True, False, None))),
            lambda: row.update(uploadUrl=f"https://upload.example/{rng.random()}"),
            lambda: self._delete_user(rng.choice(USERS)),
            *[lambda: self._flicker(row)] * 4,
            lambda: self._make(rng.randint(2, self.page_cap + 5), tied=True),
        ]
        if self.gone:
            possible += [lambda: self.rows.append(self.gone.pop(rng.randrange(len(self.gone))))]
        if self._fails:
            possible += [lambda: self._fail_on(row["id"]), self.poison.clear, self.poison.clear]
        if self._rejects:
            possible += [lambda: self._spoil(row)] * 3
        if self._twins:
            possible += [lambda: self._make_twin(row) for _ in range(3)]
        return possible

    def _make(self, count: int, *, tied: bool = False) -> None:
        second = self.first_second + self.rng.randrange(SECONDS)
        for _ in range(min(count, TOKENS_AT_MOST - len(self.rows))):
            if not tied:
                second = self.first_second + self.rng.randrange(SECONDS)
            self.made += 1
            self.rows.append(
                {
                    "id": f"0_{self.made}",
                    "userId": self.rng.choice(USERS),
                    "status": self.rng.randrange(4),
                    "fileName": "film.mp4",
                    "fileSize": 7,
                    "createdAt": second,
                    "updatedAt": second,
                    "autoFinalize": False,
                    "uploadUrl": "https://upload.example",
                }
            )
            if self.rng.random() < 0.2:
                self.rows[-1]["note"] = self.rng.choice((1.0, [1.50], {"z": "\u00e9", "a": None}))

    def _delete(self, row: Fields) -> None:
        self.rows.remove(row)
        self.gone.append(row)

    def _touch(self, row: Fields, **values: Any) -> None:
        row.update(values)
        row["updatedAt"] += self.rng.randrange(2)

    def _flicker(self, row: Fields) -> None:
        """Another value, or no row, and soon as before."""
        if self.rng.random() < 0.3:
            self.rows.remove(row)
            self._flickers.append(lambda: self.rows.append(row))
            return
        was = row["status"]
        row["status"] = self.rng.randrange(7)
        self._flickers.append(lambda: row.update(status=was))

    def _spoil(self, row: Fields) -> None:
        """A value that cannot be used, in the place of one or two; or the good ones again."""
        if "bad" in row:
            del row["bad"]
        else:
            row["bad"] = dict(self.rng.sample(BAD_VALUES, self.rng.randint(1, 2)))

    def _delete_user(self, user_id: str) -> None:
        for row in self.rows:
            if row.get("userId") == user_id:
                del row["userId"]

    def _make_twin(self, row: Fields) -> None:
        if len(self.rows) < TOKENS_AT_MOST:
            second = self.first_second + self.rng.randrange(SECONDS)
            self.rows.append(row | {"createdAt": second, "status": self.rng.randrange(4)})
            self.twins.add(row["id"])

    def _fail_on(self, token_id: str) -> None:
        if not self.poison:
            self.poison.add(token_id)


def wire(row: Fields, rng: random.Random) -> bytes:
    """A row as JSON, written now in one way and now in another."""
    sent: Fields = {"objectType": "KalturaUploadToken", "partnerId": PARTNER} | row
    bad: Fields = sent.pop("bad", {})
    for name, value in bad.items():
        if name == "fileName":
            sent["FileName"] = sent.pop(name, "film.mp4")
        else:
            sent[name] = value
    if rng.random() < 0.5:
        sent = dict(rng.sample(sorted(sent.items(), key=repr), len(sent)))
    for name in ("fileSize", "uploadedFileSize"):
        if name in sent and rng.random() < 0.5:
            sent[name] = f"{'0' * rng.randrange(3)}{sent[name]}"
    blank = rng.choice(("", "", " "))
    text = json.dumps(sent, ensure_ascii=rng.random() < 0.5, separators=(f",{blank}", f":{blank}"))
    if rng.random() < 0.3:
        text = text.replace(": 1.5", ": 1.50").replace(":1.5", ":15e-1").replace("/", "\\/")
    return text.encode()
