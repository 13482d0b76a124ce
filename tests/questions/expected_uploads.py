"""Outcomes, sizes, durations and users of the uploads."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

from tests.questions.accounts import NOW
from tests.questions.answers import BUCKET_NAMES, OUTCOMES, SINCE, Answers, Rows, giga, rounded
from tests.questions.lives import PARTIAL, moment
from tests.questions.truth import (
    Version,
    bucket_of,
    bytes_by_day,
    current,
    failure_of,
    histories,
    is_mature,
    last_seen_so,
    open_seen_at,
    outcome_of,
    quantile,
    time_to_complete,
)

ANSWERS = Answers()
MARCH = moment("03-01 00:00")


@ANSWERS.to("failed_uploads.sql")
def _() -> Rows:
    rows = []
    for token_id, version in current().items():
        if outcome_of(token_id) != "failed":
            continue
        failure = failure_of(token_id)
        if failure.at >= SINCE:
            rows.append(
                {
                    "token_id": token_id,
                    "user_id": version.user_id,
                    "file_name": version.life.file_name,
                    "status": failure.version.status_name,
                    "failed_at": failure.at,
                    "failed_after": failure.after,
                    "failed_before": failure.version.observed_at,
                    "percent": rounded(100 * (version.received or 0) / (version.life.size or 1), 0),
                }
            )
    times = {row["token_id"]: row["failed_at"] for row in rows}
    assert times["0_mar_again"] == moment("03-30 15:00")  # for the second time
    assert times["0_mar_thrice"] == moment("03-31 03:00")  # and opened again since the last night
    assert times["0_24_hidden"] == moment("03-27 20:00")  # before the look that did not see it
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


@ANSWERS.to("outcome_of_day.sql")
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


@ANSWERS.to("failure_rate_by_size.sql")
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


@ANSWERS.to("time_to_complete_by_size.sql")
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


@ANSWERS.to("slowest_users.sql")
def _() -> Rows:
    done: dict[str | None, list[tuple[timedelta, int]]] = defaultdict(list)
    for token_id in _created(MARCH, NOW):
        version = current()[token_id]
        if (took := time_to_complete(token_id)) is not None:
            done[version.user_id].append((took, version.received or 0))
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


@ANSWERS.to("busiest_users.sql")
def _() -> Rows:
    found: dict[str | None, list[str]] = defaultdict(list)
    for token_id in _created(MARCH, NOW):
        found[current()[token_id].user_id].append(token_id)
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


@ANSWERS.to("growth.sql")
def _() -> Rows:
    months: dict[str, list[Version]] = {}
    for version in current().values():
        months.setdefault(f"{version.life.created_at:%Y-%m}", []).append(version)
    ordered = sorted(months.items())
    return [
        {
            "month": month,
            "tokens": len(found),
            "gb_received_of_these": giga(sum(version.received or 0 for version in found)),
            "percent_more": rounded(Decimal(100 * len(found)) / len(before) - 100, 1)
            if before and month < f"{NOW:%Y-%m}"
            else None,
        }
        for (_, before), (month, found) in pairwise([("", []), *ordered])
    ]


@ANSWERS.to("resumed_uploads.sql")
def _() -> Rows:
    rows: Rows = []
    for token_id, seen in histories().items():
        for earlier, later in pairwise(seen):
            more = (later.received or 0) > (earlier.received or 0)
            at_most = later.updated_at - earlier.updated_at
            if (
                earlier.status == PARTIAL
                and more
                and at_most >= timedelta(hours=12)
                and later.night.published_at >= SINCE
            ):
                at_least = last_seen_so(earlier, later) - earlier.updated_at
                rows.append(
                    {
                        "token_id": token_id,
                        "user_id": later.user_id,
                        "paused_at": earlier.updated_at,
                        "at_least": max(at_least, timedelta()),
                        "at_most": at_most,
                        "certain": at_least >= timedelta(hours=12),
                        "received_before": earlier.received,
                        "received_after": later.received,
                        "announced": later.life.size,
                    }
                )
    assert {row["token_id"]: row["certain"] for row in rows}.items() >= {
        ("0_23_resumed", True),
        ("0_28_big", False),
    }
    return sorted(rows, key=lambda row: (row["paused_at"], row["token_id"]))


@ANSWERS.to("bytes_never_received.sql")
def _() -> Rows:
    found: dict[str, list[Version]] = defaultdict(list)
    for token_id in _created(MARCH, NOW):
        version = current()[token_id]
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


@ANSWERS.to("uploads_by_day.sql")
def _() -> Rows:
    zone = ZoneInfo("Europe/Berlin")
    found: dict[date, list[str]] = defaultdict(list)
    for token_id, version in current().items():
        found[version.life.created_at.astimezone(zone).date()].append(token_id)
    arrived = bytes_by_day(zone)
    looked_at = open_seen_at()
    return [
        {
            "day": day,
            "time_zone": "Europe/Berlin",
            "started": len(ids),
            "succeeded": _outcomes(ids)["succeeded"],
            "is_mature": datetime.combine(day + timedelta(days=1), time(), zone) <= looked_at
            and all(is_mature(current()[each]) for each in ids),
            "gb_received_of_these": giga(sum(current()[each].received or 0 for each in ids)),
            "gb_arrived_that_day": giga(arrived[day]),
        }
        for day, ids in sorted(found.items())
        if day >= date(2026, 3, 27)
    ]
