"""Accounts to serve: from a recorded list reply, or made from a seed."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from etl.simulator.account.account import Account
from etl.simulator.account.encode import encode_json, encode_token
from etl.simulator.account.kinds import KINDS, NAMES, mixed_name, sometimes_unusual

DEFAULT_NOW = 1_767_571_200
"""2026-01-05 00:00:00 UTC: "now" of a generated account, so that a seed gives the same bytes."""

DAY = 86_400
USERS = 300
KNOWN_STATUSES = range(7)


def account_from_file(
    path: Path | str, *, partner_id: int | None = None, clock: Callable[[], float] = time.time
) -> Account:
    """The account of a list reply as recorded: precisely its objects, in its order within ties.

    Raises ValueError, in one sentence, for anything else.
    """
    try:
        value = msgspec.json.decode(Path(path).read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ValueError(f"{path} is not JSON: {exc}") from exc
    rows = value.get("objects") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"{path} is not a list reply: it has no array named 'objects'")
    bodies = []
    partners = set()
    for number, row in enumerate(rows):
        if not (
            isinstance(row, dict)
            and isinstance(row.get("id"), str)
            and isinstance(row.get("createdAt"), int)
            and isinstance(row.get("status"), int)
        ):
            raise ValueError(f"{path}: object {number} lacks an id, a status or a createdAt")
        partners.add(row.get("partnerId"))
        bodies.append(
            (row["id"], row["createdAt"], row["status"], row.get("userId"), encode_token(row))
        )
    if partner_id is None:
        if len(partners) > 1:
            raise ValueError(f"{path} has rows of several partners: {sorted(map(str, partners))}")
        partner_id = int(partners.pop() or 0) if partners else 102
    account = Account(partner_id, clock=clock)
    account.load(bodies)
    return account


def generate_account(
    tokens: int,
    *,
    seed: int = 0,
    kind: str = "mixed",
    partner_id: int = 102,
    now: int = DEFAULT_NOW,
    open_share: float = 0.15,
    clock: Callable[[], float] | None = None,
) -> Account:
    """A realistic account of ``tokens`` tokens, the same for the same arguments.

    Uploads come in working hours and in batches (ties of up to 40 per second), about 2,000 per day
    at the end; most are closed, some failed, and ``open_share`` of them never got further than
    pending, partial or full.  ``kind`` is one of ``KINDS``; in a mixed account one in 200 has an
    odd name.
    ``clock`` is the account's own time and starts at ``now``, running with the machine's, unless
    given.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of account {kind!r}; use one of {', '.join(KINDS)}")
    if clock is None:
        started = time.monotonic()

        def clock() -> float:
            return now + time.monotonic() - started

    account = Account(partner_id, clock=clock)
    was_enabled = gc.isenabled()
    # A million live objects make every full collection expensive, and none of them is garbage.
    gc.disable()
    try:
        rng = random.Random(f"{seed}/account")  # noqa: S311 (repeatable by design)
        account.load(_bodies(tokens, rng, account, now, open_share, kind))
    finally:
        if was_enabled:
            gc.enable()
    return account


def upload_times(count: int, rng: random.Random, now: int) -> list[int]:
    """createdAt of ``count`` uploads, ascending: busier by day, in batches, denser towards now."""
    span = max(30 * DAY, count * DAY // 2_000)
    times: list[int] = []
    while len(times) < count:
        second = now - int(span * (1 - rng.random() ** 0.7))
        hour = second // 3600 % 24
        if (hour < 7 or hour > 20) and rng.random() < 0.75:
            continue
        batch = 1 if rng.random() < 0.93 else rng.randrange(2, 41)
        times += [second] * min(batch, count - len(times))
    times.sort()
    return times


def _bodies(
    count: int, rng: random.Random, account: Account, now: int, open_share: float, kind: str
) -> Iterator[tuple[str, int, int, str | None, bytes]]:
    users = [f"user{number}@example.com" for number in range(USERS)]
    user_bodies = [encode_json(user) for user in users]
    file_name = NAMES[kind]
    for created_at in upload_times(count, rng, now):
        token_id = f"0_{rng.getrandbits(128):032x}"
        at = int(USERS * rng.random() ** 2)
        user = users[at] if rng.random() < 0.95 else None
        size = int(10 ** (4 + 6 * rng.random()))
        age = now - created_at
        status, uploaded, took = _state(rng, size, age, open_share)
        if status not in KNOWN_STATUSES and kind != "mixed":
            status = 6
        parts = [b'{"id":"%s","partnerId":%d' % (token_id.encode(), account.partner_id)]
        if user is not None:
            parts.append(b',"userId":' + user_bodies[at])
        parts.append(b',"status":%d,"fileName":%s' % (status, file_name(rng)))
        if status or rng.random() < 0.5:
            parts.append(b',"fileSize":"%d"' % size)
        if status:
            parts.append(b',"uploadedFileSize":"%d"' % uploaded)
        updated_at = min(created_at + took, now)
        final = b"true" if status == 0 and age < 30 * DAY and rng.random() < 0.2 else b"false"
        parts.append(
            b',"createdAt":%d,"updatedAt":%d,"autoFinalize":%s' % (created_at, updated_at, final)
        )
        if status == 3:
            entry = rng.getrandbits(40)
            parts.append(b',"attachedObjectType":"entry","attachedObjectId":"0_%010x"' % entry)
        parts.append(b',"objectType":"KalturaUploadToken"}')
        body = b"".join(parts)
        if kind == "odd":
            body = sometimes_unusual(rng, body)
        yield token_id, created_at, status, user, body


def _state(rng: random.Random, size: int, age: int, open_share: float) -> tuple[int, int, int]:
    """(status, bytes uploaded, seconds until its last change) of an upload of this age."""
    took = 5 + size // 2_000_000 + rng.randrange(120)
    if age < took:
        return (0, 0, 0) if rng.random() < 0.5 else (1, size // 3, age)
    if rng.random() < open_share:
        draw = rng.random()
        if draw < 0.4:
            return 2, size, took
        return (0, 0, 0) if draw < 0.7 else (1, int(size * rng.random()), took // 2)
    draw = rng.random()
    if draw < 0.96:
        return 3, size, took + 30
    if draw < 0.98:
        return 4, int(size * rng.random()), took
    return (6 if draw < 0.9995 else 99), size, took


def odd_or_plain_name(rng: random.Random) -> dict[str, Any]:
    """``{"fileName": …}`` for a new upload."""
    return {"fileName": msgspec.json.decode(mixed_name(rng))}
