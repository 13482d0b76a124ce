"""How uploads fare over weeks, hours, statuses, users and accounts."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from decimal import Decimal

from tests.questions.accounts import ACCOUNT, ACCOUNTS, BERLIN
from tests.questions.answers import SINCE, Answers, Rows, rounded
from tests.questions.lives import moment
from tests.questions.truth import (
    FAILED,
    NAMES,
    OPEN,
    Version,
    current,
    histories,
    is_mature,
    open_seen_at,
    outcome_of,
    quantile,
    status_changes,
    stay_in,
    stuck_at,
    time_to_complete,
)

ANSWERS = Answers()
WEEK = timedelta(days=7)


def _week_of(version: Version) -> date:
    """Its Monday."""
    day = version.life.created_at.date()
    return day - timedelta(days=day.weekday())


def _created_since(since: datetime) -> dict[str, Version]:
    return {
        token_id: version
        for token_id, version in current().items()
        if version.life.created_at >= since
    }


def _by_week(since: datetime) -> list[tuple[date, dict[str, Version]]]:
    found: dict[date, dict[str, Version]] = defaultdict(dict)
    for token_id, version in _created_since(since).items():
        found[_week_of(version)][token_id] = version
    return sorted(found.items())


@ANSWERS.to("retries.sql")
def _() -> Rows:
    """By the log: what its user tried again, if both attempts were seen under one name."""
    rows = []
    for version in current().values():
        before = current().get(version.life.retry_of or "")
        if before is None or version.life.created_at < SINCE:
            continue
        assert before.user_id == version.user_id
        rows.append(
            (
                version.life.created_at,
                {
                    "user_id": version.user_id,
                    "file_name": version.life.file_name,
                    "outcome_before": outcome_of(before.token_id),
                    "after": version.life.created_at - before.life.created_at,
                    "token_id": version.token_id,
                    "outcome": outcome_of(version.token_id),
                },
            )
        )
    return [row for _, row in sorted(rows, key=lambda each: each[0])]


@ANSWERS.to("funnel_by_week.sql")
def _() -> Rows:
    rows = []
    for week, ids in _by_week(moment("02-16 00:00")):
        outcomes = Counter(outcome_of(token_id) for token_id in ids)
        some = [
            version
            for token_id, version in ids.items()
            if version.received or outcome_of(token_id) == "succeeded"
        ]
        rows.append(
            {
                "week": week,
                "started": len(ids),
                "with_bytes": len(some),
                "with_all_bytes": sum(
                    version.received == version.life.size
                    or outcome_of(version.token_id) == "succeeded"
                    for version in some
                ),
                "succeeded": outcomes["succeeded"],
                "percent_succeeded": rounded(Decimal(100 * outcomes["succeeded"]) / len(ids), 1),
                "still_open": outcomes["still_open"],
                "is_mature": week + WEEK <= open_seen_at().date()
                and all(map(is_mature, ids.values())),
            }
        )
    return rows


@ANSWERS.to("completed_in_time.sql")
def _() -> Rows:
    day = timedelta(days=1)
    rows = []
    for week, ids in _by_week(moment("02-16 00:00")):
        in_time = {
            token_id
            for token_id in ids
            if (took := time_to_complete(token_id)) is not None and took <= day
        }
        young = {
            token_id
            for token_id, version in ids.items()
            if open_seen_at() < version.life.created_at + day
        }
        # Of the young ones only those show that were quick, so they are left out of both.
        in_time -= young
        decided = len(ids) - len(young)
        rows.append(
            {
                "week": week,
                "started": len(ids),
                "in_time": len(in_time),
                "too_late_or_never": decided - len(in_time),
                "undecided": len(young),
                "percent_in_time": rounded(Decimal(100 * len(in_time)) / decided, 1)
                if decided
                else None,
            }
        )
    assert any(row["undecided"] for row in rows)
    return rows


@ANSWERS.to("time_in_status.sql")
def _() -> Rows:
    rows = []
    for status in OPEN:
        stays = [
            stay
            for token_id in _created_since(moment("03-01 00:00"))
            if (stay := stay_in(token_id, status)) is not None
        ]
        rows.append(
            {
                "status": NAMES[status],
                "passed": len(stays),
                "seen": sum(stay.seen for stay in stays),
                "median_at_least": quantile([stay.at_least for stay in stays], 0.5),
                "median_at_most": quantile([stay.at_most for stay in stays], 0.5),
                "median_estimated": quantile([stay.estimated for stay in stays], 0.5),
            }
        )
    return rows


@ANSWERS.to("hour_of_day.sql")
def _() -> Rows:
    since = moment("03-01 00:00")
    found: dict[int, list[str]] = defaultdict(list)
    for token_id, version in _created_since(since).items():
        found[version.life.created_at.astimezone(BERLIN).hour].append(token_id)
    failures = Counter[int](
        after.happened_at.astimezone(BERLIN).hour
        for before, after in status_changes()
        if after.listed
        and after.status in FAILED
        and (before is None or (before.listed and before.status not in FAILED))
        and after.happened_at >= since
    )
    rows = []
    for hour in sorted(found.keys() | failures.keys()):
        ids = found[hour]
        times = [took for each in ids if (took := time_to_complete(each)) is not None]
        outcomes = Counter(outcome_of(each) for each in ids)
        rows.append(
            {
                "hour": hour,
                "started": len(ids),
                "succeeded": outcomes["succeeded"],
                "median": quantile(times, 0.5) if times else None,
                "failures": failures[hour],
            }
        )
    return rows


@ANSWERS.to("cohorts.sql")
def _() -> Rows:
    since = moment("02-09 00:00").date()
    weeks: dict[str, set[date]] = defaultdict(set)
    for version in current().values():
        if version.user_id is not None:
            weeks[version.user_id].add(_week_of(version))
    rows = []
    for first in sorted({min(active) for active in weeks.values() if min(active) >= since}):
        cohort = [active for active in weeks.values() if min(active) == first]
        back = [
            sum(first + WEEK * later in active for active in cohort)
            if first + WEEK * (later + 1) <= open_seen_at().date()
            else None
            for later in range(1, 5)
        ]
        rows.append(
            {
                "first_week": first,
                "users": len(cohort),
                "after_1_week": back[0],
                "after_2_weeks": back[1],
                "after_3_weeks": back[2],
                "after_4_weeks": back[3],
            }
        )
    return rows


@ANSWERS.to("renamed_users.sql")
def _() -> Rows:
    """By the log of names: a change shows if a token of theirs was listed before and after it."""
    rows = []
    for change in ACCOUNT.names:
        if change.becomes is None:
            continue
        renamed = [
            history[-1]
            for history in histories().values()
            if {change.user_id, change.becomes} <= {version.user_id for version in history}
        ]
        night = next(night for night in ACCOUNT.complete if night.began_at >= change.at)
        left = [each for each in current().values() if each.user_id == change.user_id]
        both = [each for each in current().values() if each.user_id == change.becomes]
        rows.append(
            {
                "user_id_before": change.user_id,
                "user_id_after": change.becomes,
                "first_seen_at": night.observed_at,
                "tokens_renamed": len(renamed),
                "left_behind": len(left),
                "uploads_in_all": len(left) + len(both),
            }
        )
    return sorted(rows, key=lambda row: row["first_seen_at"])


@ANSWERS.to("accounts_side_by_side.sql")
def _() -> Rows:
    rows = []
    for account in ACCOUNTS.values():
        ids = [
            token_id
            for token_id, version in current(account).items()
            if version.life.created_at >= SINCE
        ]
        outcomes = Counter(outcome_of(token_id, account) for token_id in ids)
        ended = len(ids) - outcomes["still_open"]
        times = [took for each in ids if (took := time_to_complete(each, account)) is not None]
        rows.append(
            {
                "partner_id": account.partner_id,
                "last_complete_at": account.complete[-1].published_at,
                "started": len(ids),
                "percent_succeeded": rounded(Decimal(100 * outcomes["succeeded"]) / ended, 1),
                "percent_failed": rounded(Decimal(100 * outcomes["failed"]) / ended, 1),
                "median": quantile(times, 0.5),
                "stuck": len(stuck_at(open_seen_at(None, account), account)),
            }
        )
    return rows
