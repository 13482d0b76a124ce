"""The answers that the known account must give, worked out without any SQL of the program.

Plain Python over ``lives`` and ``truth``, and where few, written down.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from tests.questions.lives import (
    BAD_ROW,
    CLOSED,
    FULL,
    LIVES,
    NIGHTS,
    NOW,
    PARTIAL,
    PENDING,
    UNKNOWN_CODE,
    moment,
)
from tests.questions.truth import (
    BUCKETS,
    FAILED,
    NAMES,
    OPEN,
    PUBLISHED,
    Version,
    as_of,
    bucket_of,
    current,
    history_of,
    outcome_of,
    quantile,
    status_changes,
    time_to_complete,
    user_of,
    versions,
)

Rows = list[dict[str, Any]]
OUTCOMES = ("succeeded", "failed", "abandoned", "deleted", "still_open")
SINCE = moment("03-20 00:00")
BUCKET_NAMES = [*(name for name, _ in BUCKETS), "unknown"]


def rounded(value: float | Decimal, places: int) -> Decimal:
    """As Postgres rounds: halves away from zero."""
    return Decimal(value).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)


def giga(size: int) -> Decimal:
    return rounded(Decimal(size) / 10**9, 2)


# --- the expectations, one a file ----------------------------------------------------------------

EXPECTED: dict[str, Callable[[], Rows]] = {}


def answers(file: str) -> Callable[[Callable[[], Rows]], Callable[[], Rows]]:
    def keep(function: Callable[[], Rows]) -> Callable[[], Rows]:
        EXPECTED[file] = function
        return function

    return keep


@answers("freshness.sql")
def _() -> Rows:
    return [
        {
            "last_complete_at": moment("03-30 21:05"),
            "hours_old": Decimal("10.9"),
            "last_run_status": "succeeded",
            "tokens_listed": sum(life.state_at(NIGHTS[-1].began_at) is not None for life in LIVES),
            "tokens_known": len(LIVES) - 1,  # 0_24_unseen came and went between two nights
            "unreadable": 0,
            "rejected": 1,
            "certificate": "{(,)}",
        }
    ]


@answers("troubled_nights.sql")
def _() -> Rows:
    return [
        {
            "run_id": night.run_id,
            "started_at": night.began_at,
            "status": "failed" if night.failed else "succeeded",
            "error_kind": "credentials" if night.failed else None,
            "resumed_from": night.resumed_from,
            "unreadable": int(night.unreadable is not None),
            "made_good_at": min(
                later.published_at
                for later in PUBLISHED
                if later.unreadable is None and later.began_at >= night.began_at
            ),
        }
        for night in NIGHTS
        if night.failed or night.resumed_from or night.unreadable
    ]


@answers("rejected_rows.sql")
def _() -> Rows:
    token_id, created_at = BAD_ROW
    bad = [night.began_at for night in PUBLISHED if night.began_at >= created_at]
    odd = [night for night in PUBLISHED if night.odd]
    columns = ("token_id", "reason", "runs", "first_at", "last_at", "otherwise_known")
    return [
        dict(zip(columns, row, strict=True))
        for row in (
            (token_id, "file_size_invalid", len(bad), bad[0], bad[-1], False),
            (odd[0].odd, "auto_finalize_invalid", 1, odd[0].began_at, odd[0].began_at, True),
        )
    ]


@answers("status_now.sql")
def _() -> Rows:
    by_status: dict[int, list[Version]] = defaultdict(list)
    for version in current().values():
        if version.listed:
            by_status[version.status].append(version)
    groups = dict.fromkeys(OPEN, "open") | dict.fromkeys(FAILED, "failed") | {CLOSED: "succeeded"}
    return [
        {
            "status": NAMES[status],
            "outcome_group": groups.get(status),
            "tokens": len(found),
            "oldest": min(version.life.created_at for version in found),
        }
        for status, found in sorted(by_status.items())
    ]


@answers("status_each_day.sql")
def _() -> Rows:
    rows = []
    for number in range((NOW - SINCE).days):
        day = SINCE + timedelta(days=number)
        known = as_of(day + timedelta(days=1)).values()
        counts = Counter(version.status for version in known if version.listed)
        rows.append(
            {
                "day": day.date(),
                "pending": counts[PENDING],
                "partial": counts[PARTIAL],
                "full": counts[FULL],
                "closed": counts[CLOSED],
                "failed": sum(counts[status] for status in FAILED),
                "unknown": counts[UNKNOWN_CODE],
                "not_listed": sum(not version.listed for version in known),
            }
        )
    return rows


@answers("stuck_now.sql")
def _() -> Rows:
    looked_at = PUBLISHED[-1].began_at
    rows = []
    for version in current().values():
        if version.is_open and looked_at - version.moved_at >= timedelta(hours=24):
            size = version.life.size
            assert size is not None
            rows.append(
                {
                    "token_id": version.life.token_id,
                    "user_id": user_of(version),
                    "status": version.status_name,
                    "last_moved_at": version.moved_at,
                    "stuck_for": looked_at - version.moved_at,
                    "percent_received": rounded(100 * (version.received or 0) / size, 1),
                }
            )
    assert {row["token_id"] for row in rows} == {"0_feb_full", "0_22_stuck"}
    return sorted(rows, key=lambda row: (-row["stuck_for"], row["token_id"]))


@answers("stuck_on_day.sql")
def _() -> Rows:
    tuesday = moment("03-24 00:00")
    rows = []
    for token_id, version in as_of(tuesday + timedelta(days=1)).items():
        if version.is_open and version.moved_at <= tuesday:
            size = version.life.size
            assert size is not None
            rows.append(
                {
                    "token_id": token_id,
                    "user_id": user_of(version),
                    "status_then": version.status_name,
                    "last_moved_at": version.moved_at,
                    "percent": rounded(100 * (version.received or 0) / size, 0),
                    "became": outcome_of(token_id),
                }
            )
    assert {row["token_id"]: row["became"] for row in rows} == {
        "0_feb_full": "abandoned",
        "0_22_stuck": "abandoned",
        "0_22_timeout": "failed",
        "0_23_half": "deleted",
        "0_23_late": "succeeded",
        "0_23_resumed": "succeeded",
    }
    return sorted(rows, key=lambda row: (row["last_moved_at"], row["token_id"]))


@answers("stuck_at_run.sql")
def _() -> Rows:
    now, before = as_of(NIGHTS[4].published_at), as_of(NIGHTS[3].published_at)
    by_status: dict[int, list[str]] = defaultdict(list)
    for token_id, version in now.items():
        if version.is_open and before.get(token_id) == version:
            by_status[version.status].append(token_id)
    last = current()
    return [
        {
            "status_then": NAMES[status],
            "stuck": len(found),
            "oldest": min(last[each].life.created_at for each in found),
            "still_open": sum(last[each].is_open for each in found),
            "closed": sum(last[each].listed and last[each].status == CLOSED for each in found),
            "failed": sum(last[each].listed and last[each].status in FAILED for each in found),
            "gone": sum(not last[each].listed for each in found),
        }
        for status, found in sorted(by_status.items())
    ]


@answers("then_and_now.sql")
def _() -> Rows:
    """Seen since, but true then: the failed night of the 25th would have told it."""
    return [
        {"known_then": then, "known_now": now, "tokens": count, "for_example": example}
        for then, now, count, example in (
            ("PARTIAL_UPLOAD", "CLOSED", 1, "0_24_evening"),
            ("PARTIAL_UPLOAD", "TIMED_OUT", 1, "0_22_timeout"),
            ("not seen yet", "CLOSED", 3, "0_25_a"),
        )
    ]


@answers("history_of_token.sql")
def _() -> Rows:
    sent = ["uploaded_size_bytes", "updated_at"]
    attached = ["attached_object_type", "attached_object_id"]
    reasons = [None, sent, ["status", *sent, *attached]]
    return [
        {
            "version": version.version,
            "run_id": version.night.run_id,
            "change_kind": version.kind,
            "status": version.status_name,
            "updated_at": version.updated_at,
            "valid_from": version.night.published_at,
            "changed_columns": reason,
        }
        for version, reason in zip(history_of("0_23_resumed"), reasons, strict=True)
    ]


@answers("when_did_it_happen.sql")
def _() -> Rows:
    rows: Rows = []
    before: datetime | None = None
    for _was, version in status_changes("0_mar_back"):
        rows.append(
            {
                "to_status": version.seen_as,
                "happened_at": version.happened_at,
                "happened_after": version.happened_after,
                "happened_before": version.observed_at,
                "time_in_from_status": version.happened_at - before if before else None,
            }
        )
        before = version.happened_at
    went, back = moment("03-22 10:00"), moment("03-24 10:00")
    assert rows[1]["happened_after"] < went < rows[1]["happened_before"]
    assert rows[2]["happened_after"] < back < rows[2]["happened_before"]
    return rows


@answers("what_changed_last_run.sql")
def _() -> Rows:
    counts: Counter[tuple[str, str | None, str]] = Counter()
    for version in versions():
        if version.night == NIGHTS[-1]:
            earlier = history_of(version.life.token_id)[: version.version - 1]
            was = earlier[-1].status_name if earlier else None
            counts[version.kind, was, version.status_name] += 1
    rows = [
        {"change_kind": kind, "was": was, "became": became, "tokens": tokens}
        for (kind, was, became), tokens in counts.items()
    ]
    return sorted(
        rows, key=lambda row: (row["change_kind"], -row["tokens"], row["was"] or "", row["became"])
    )


@answers("changed_between.sql")
def _() -> Rows:
    before, after = as_of(NIGHTS[4].published_at), as_of(NIGHTS[6].published_at)
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for token_id, version in after.items():
        was = before[token_id].seen_as if token_id in before else "(none)"
        if was != version.seen_as:
            found[was, version.seen_as].append(token_id)
    rows = [
        {"was": was, "became": became, "tokens": len(ids), "for_example": min(ids)}
        for (was, became), ids in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["tokens"], row["was"], row["became"]))


@answers("first_status.sql")
def _() -> Rows:
    since = moment("03-21 00:00")
    ages: dict[int, list[timedelta]] = defaultdict(list)
    for version in versions():
        if version.version == 1 and version.life.created_at >= since:
            ages[version.status].append(version.observed_at - version.life.created_at)
    tokens = sum(map(len, ages.values()))
    return [
        {
            "first_status": NAMES[status],
            "tokens": len(found),
            "percent": rounded(Decimal(100 * len(found)) / tokens, 1),
            "median_age": quantile(found, 0.5),
        }
        for status, found in sorted(ages.items())
    ]


@answers("disappeared.sql")
def _() -> Rows:
    rows = [
        {
            "run_id": after.night.run_id,
            "token_id": after.life.token_id,
            "last_status": before.seen_as,
            "is_back": current()[after.life.token_id].listed,
            "went_after": after.happened_after,
            "went_before": after.observed_at,
        }
        for before, after in status_changes()
        if before and not after.listed and after.night.published_at >= NOW - timedelta(days=7)
    ]
    for row in rows:
        (life,) = (life for life in LIVES if life.token_id == row["token_id"])
        assert row["went_after"] < life.moves[-1].at < row["went_before"]
    return sorted(rows, key=lambda row: (-row["run_id"], row["token_id"]))


@answers("vanished_unfinished.sql")
def _() -> Rows:
    rows = [
        {
            "token_id": token_id,
            "user_id": user_of(version),
            "last_status": version.status_name,
            "created_at": version.life.created_at,
            "went_after": version.last_listed_at,
            "went_before": version.observed_at,
            "received": version.received,
        }
        for token_id, version in current().items()
        if not version.listed and version.status in OPEN
    ]
    assert {row["token_id"] for row in rows} == {"0_26_wait", "0_23_half", "0_jan_never"}
    return sorted(rows, key=lambda row: (-row["went_before"].timestamp(), row["token_id"]))


@answers("failed_uploads.sql")
def _() -> Rows:
    rows = [
        {
            "token_id": token_id,
            "user_id": user_of(version),
            "file_name": version.life.file_name,
            "status": version.status_name,
            "failed_at": version.updated_at,
            "percent": rounded(100 * (version.received or 0) / (version.life.size or 1), 0),
        }
        for token_id, version in current().items()
        if version.status in FAILED and version.updated_at >= SINCE
    ]
    return sorted(rows, key=lambda row: (-row["failed_at"].timestamp(), row["token_id"]))


def _outcomes(ids: list[str]) -> dict[str, int]:
    counts = Counter(outcome_of(token_id) for token_id in ids)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _by_bucket(ids: list[str]) -> list[tuple[str, list[str]]]:
    """The tokens by size announced: each bucket that has any, smallest first."""
    found: dict[str, list[str]] = defaultdict(list)
    for token_id in ids:
        found[bucket_of(current()[token_id].life.size)].append(token_id)
    return sorted(found.items(), key=lambda item: BUCKET_NAMES.index(item[0]))


def _created(begin: datetime, end: datetime) -> list[str]:
    return [each for each, v in current().items() if begin <= v.life.created_at < end]


@answers("outcome_of_day.sql")
def _() -> Rows:
    day = moment("03-23 00:00")
    return [
        {
            "size_bucket": bucket,
            "started": len(ids),
            **_outcomes(ids),
            "bytes_announced": sum(current()[each].life.size or 0 for each in ids),
            "bytes_received": sum(current()[each].received or 0 for each in ids),
        }
        for bucket, ids in _by_bucket(_created(day, day + timedelta(days=1)))
    ]


@answers("failure_rate_by_size.sql")
def _() -> Rows:
    rows = []
    for bucket, ids in _by_bucket(_created(SINCE, NOW)):
        counts = _outcomes(ids)
        ended = len(ids) - counts["still_open"]
        lost = ended - counts["succeeded"]
        rows.append(
            {
                "size_bucket": bucket,
                "started": len(ids),
                "ended": ended,
                **{name: counts[name] for name in ("failed", "abandoned", "deleted")},
                "percent_lost": rounded(Decimal(100 * lost) / ended, 1) if ended else None,
            }
        )
    return rows


@answers("time_to_complete_by_size.sql")
def _() -> Rows:
    rows = []
    for bucket, ids in _by_bucket(_created(SINCE, NOW)):
        times = [took for each in ids if (took := time_to_complete(each)) is not None]
        if times:
            rows.append(
                {
                    "size_bucket": bucket,
                    "completed": len(times),
                    "median": quantile(times, 0.5),
                    "p95": quantile(times, 0.95),
                    "longest": max(times),
                }
            )
    return rows


@answers("slowest_users.sql")
def _() -> Rows:
    done: dict[str | None, list[tuple[timedelta, int]]] = defaultdict(list)
    for token_id, version in current().items():
        if (took := time_to_complete(token_id)) is not None:
            done[user_of(version)].append((took, version.received or 0))
    rows = []
    for user, found in done.items():
        if len(found) >= 5:
            received = sum(each for _, each in found)
            rates = [each / 10**6 / took.total_seconds() for took, each in found]
            rows.append(
                {
                    "user_id": user,
                    "completed": len(found),
                    "median": quantile([took for took, _ in found], 0.5),
                    "average_mb": rounded(Decimal(received) / len(found) / 10**6, 0),
                    "median_mb_per_second": rounded(statistics.median(rates), 2),
                }
            )
    return sorted(rows, key=lambda row: (-row["median"], row["user_id"] or "~"))


@answers("busiest_users.sql")
def _() -> Rows:
    found: dict[str | None, list[str]] = defaultdict(list)
    for token_id, version in current().items():
        found[user_of(version)].append(token_id)
    rows = []
    for user, ids in found.items():
        received = sum(current()[each].received or 0 for each in ids)
        rows.append(
            (
                received,
                {
                    "user_id": user,
                    "uploads": len(ids),
                    "gb_received": giga(received),
                    **_outcomes(ids),
                    "last_upload_at": max(current()[each].life.created_at for each in ids),
                },
            )
        )
    return [row for _, row in sorted(rows, key=lambda each: -each[0])]


@answers("growth.sql")
def _() -> Rows:
    rows: Rows = []
    tokens = received = 0
    for month in (1, 2, 3):
        found = [v for v in current().values() if v.life.created_at.month == month]
        tokens += len(found)
        received += sum(version.received or 0 for version in found)
        rows.append(
            {
                "month": f"2026-{month:02}",
                "tokens": len(found),
                "gb_received": giga(sum(version.received or 0 for version in found)),
                "tokens_in_all": tokens,
                "gb_in_all": giga(received),
            }
        )
    return rows


@answers("resumed_uploads.sql")
def _() -> Rows:
    resumed: dict[str, list[tuple[Version, Version]]] = defaultdict(list)
    for token_id in current():
        seen = history_of(token_id)
        for earlier, later in pairwise(seen):
            waited = later.updated_at - earlier.updated_at >= timedelta(hours=12)
            more = (later.received or 0) > (earlier.received or 0)
            if earlier.status == PARTIAL and more and waited:
                resumed[token_id].append((earlier, later))
    assert resumed.keys() == {"0_23_resumed", "0_24_evening", "0_28_big"}
    return [
        {
            "token_id": token_id,
            "user_id": user_of(steps[0][0]),
            "times_resumed": len(steps),
            "received_at_first": steps[0][0].received,
            "received_in_the_end": steps[-1][1].received,
            "announced": steps[0][0].life.size,
            "became": outcome_of(token_id),
        }
        for token_id, steps in sorted(resumed.items())
    ]


@answers("bytes_never_received.sql")
def _() -> Rows:
    found: dict[str, list[Version]] = defaultdict(list)
    for token_id, version in current().items():
        if version.life.size and outcome_of(token_id) != "succeeded":
            found[outcome_of(token_id)].append(version)
    rows = []
    for outcome, lost in found.items():
        announced = sum(version.life.size or 0 for version in lost)
        received = sum(version.received or 0 for version in lost)
        rows.append(
            {
                "outcome": outcome,
                "uploads": len(lost),
                "gb_announced": giga(announced),
                "gb_received": giga(received),
                "gb_never_received": giga(announced - received),
            }
        )
    return sorted(rows, key=lambda row: -row["gb_never_received"])


@answers("uploads_by_day.sql")
def _() -> Rows:
    zone = ZoneInfo("Europe/Berlin")
    found: dict[date, list[str]] = defaultdict(list)
    for token_id, version in current().items():
        found[version.life.created_at.astimezone(zone).date()].append(token_id)
    rows = [
        {
            "day": day,
            "time_zone": "Europe/Berlin",
            "started": len(ids),
            "succeeded": _outcomes(ids)["succeeded"],
            "gb_received": giga(sum(current()[each].received or 0 for each in ids)),
        }
        for day, ids in sorted(found.items())
        if day >= date(2026, 3, 27)
    ]
    # By UTC it would be four each day: two uploads of the late evening are of the next day there,
    # one before and one after the clocks go forward.
    assert [row["started"] for row in rows] == [4, 3, 4, 5]
    return rows
