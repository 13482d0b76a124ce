"""What is, and what was at a moment: the state of runs, statuses and stuck uploads."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from decimal import Decimal

from tests.questions.accounts import ACCOUNT, ACCOUNTS, NOW, Night
from tests.questions.answers import OUTCOMES, SINCE, Answers, Rows, rounded
from tests.questions.lives import UNKNOWN_CODE, Life, moment
from tests.questions.truth import (
    NAMES,
    NOT_LISTED,
    Version,
    as_of,
    current,
    happened_by,
    looks,
    open_seen_at,
    outcome_of,
    status_at,
    stuck_at,
)

ANSWERS = Answers()


@ANSWERS.to("freshness.sql")
def _() -> Rows:
    return [
        {
            "last_complete_at": moment("03-31 00:35"),
            "hours_old": Decimal("7.4"),
            "last_run_status": "succeeded",
            "tokens_listed": sum(version.listed for version in current().values()),
            "tokens_known": len(current()),
            "unreadable": 0,
            "rejected": 1,
            "certificate": "{(,)}",
        }
    ]


@ANSWERS.to("troubled_nights.sql")
def _() -> Rows:
    """Of every account in the warehouse: the job of either may have been forgotten."""
    rows: Rows = []
    for account in ACCOUNTS.values():
        day = SINCE
        while day.date() < NOW.date():
            begun = [each for each in account.nights if each.began_at.date() == day.date()]
            if not any(each in account.complete for each in begun):
                later = [each for each in account.complete if each.began_at > day]
                failed = [each for each in begun if each.failed]
                rows.append(
                    {
                        "partner_id": account.partner_id,
                        "day": day.date(),
                        "outcome": _outcome_of_night(begun),
                        "runs": len(begun),
                        "error_kind": "credentials" if failed else None,
                        "last_attempt_at": begun[-1].began_at if begun else None,
                        "made_good_at": later[0].published_at if later else None,
                    }
                )
            day += timedelta(days=1)
    assert [row["day"].day for row in rows if row["partner_id"] == ACCOUNT.partner_id] == [25, 26]
    return sorted(rows, key=lambda row: (row["day"], row["partner_id"]))


def _outcome_of_night(begun: list[Night]) -> str:
    if any(not each.failed for each in begun):
        return "partial"
    return "failed" if begun else "no_run"


@ANSWERS.to("troubled_runs.sql")
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
                for later in ACCOUNT.complete
                if later.began_at >= night.began_at and later.unreadable != (night.unreadable or 0)
            ),
        }
        for night in ACCOUNT.nights
        if night.began_at >= SINCE and (night.failed or night.resumed_from or night.unreadable)
    ]


@ANSWERS.to("rejected_rows.sql")
def _() -> Rows:
    token_id, created_at = ACCOUNT.bad_row
    # The incremental run of the 31st met it too: in the list of open tokens.
    bad = [night.began_at for night in ACCOUNT.published if night.began_at >= created_at]
    odd = [night for night in ACCOUNT.complete if night.odd]
    columns = ("token_id", "reason", "runs", "first_at", "last_at", "otherwise_known")
    return [
        dict(zip(columns, row, strict=True))
        for row in (
            (token_id, "partner_id_invalid", len(bad), bad[0], bad[-1], False),
            (odd[0].odd, "status_invalid", 1, odd[0].began_at, odd[0].began_at, True),
        )
    ]


@ANSWERS.to("status_now.sql")
def _() -> Rows:
    by_status: dict[int, list[Version]] = defaultdict(list)
    for version in current().values():
        if version.listed:
            by_status[version.status].append(version)
    return [
        {
            "status": NAMES[status],
            "tokens": len(found),
            "oldest": min(version.life.created_at for version in found),
        }
        for status, found in sorted(by_status.items())
    ]


@ANSWERS.to("status_each_day.sql")
def _() -> Rows:
    rows: Rows = []
    for number in range((NOW - SINCE).days):
        day = SINCE + timedelta(days=number)
        midnight = day + timedelta(days=1)
        counts = Counter(status_at(midnight).values())
        known_at = min(
            look.walk_began_at
            for look in looks()
            if look.night in ACCOUNT.complete and look.walk_began_at >= midnight
        )
        rows.append(
            {
                "day": day.date(),
                "pending": counts["PENDING"],
                "partial": counts["PARTIAL_UPLOAD"],
                "full": counts["FULL_UPLOAD"],
                "closed": counts["CLOSED"],
                "timed_out": counts["TIMED_OUT"],
                "deleted": 0,  # such a token is not listed
                "error": counts["ERROR"],
                "unknown": counts[NAMES[UNKNOWN_CODE]],
                "not_listed": counts[NOT_LISTED],
                "known_at": known_at,
                "stale_by": timedelta(),
            }
        )
    return rows


@ANSWERS.to("stuck_now.sql")
def _() -> Rows:
    looked_at = open_seen_at()
    rows = []
    for version in current().values():
        if version.is_open and looked_at - version.moved_at >= timedelta(hours=24):
            size = version.life.size
            assert size is not None
            rows.append(
                {
                    "token_id": version.life.token_id,
                    "user_id": version.user_id,
                    "status": version.status_name,
                    "last_moved_at": version.moved_at,
                    "stuck_for": looked_at - version.moved_at,
                    "percent_received": rounded(100 * (version.received or 0) / size, 1),
                }
            )
    assert {row["token_id"] for row in rows} >= {"0_feb_full", "0_22_stuck"}
    return sorted(rows, key=lambda row: (-row["stuck_for"], row["token_id"]))


@ANSWERS.to("stuck_on_day.sql")
def _() -> Rows:
    """By the lives: open at the last look of that Tuesday, which was in its night."""
    day_end = moment("03-25 00:00")
    known_at = open_seen_at(day_end)
    assert known_at == moment("03-24 01:30")
    rows: Rows = [
        {
            "token_id": life.token_id,
            "user_id": state.user_id,
            "status_then": NAMES[state.status],
            "last_moved_at": moved_at,
            "stuck_for": known_at - moved_at,
            "percent": rounded(100 * (state.received or 0) / life.size, 0) if life.size else None,
            "became": outcome_of(life.token_id),
            "known_at": known_at,
            "stale_by": day_end - known_at,
            "is_whole": True,
        }
        for life, state, moved_at in stuck_at(known_at)
    ]
    assert {row["token_id"]: row["became"] for row in rows}.items() >= {
        ("0_feb_full", "abandoned"),
        ("0_22_stuck", "abandoned"),
        ("0_22_timeout", "failed"),
    }
    return sorted(rows, key=lambda row: (row["last_moved_at"], row["token_id"]))


@ANSWERS.to("stuck_at_run.sql")
def _() -> Rows:
    known_at = ACCOUNT.night_of("03-24").began_at
    by_status: dict[int, list[Life]] = defaultdict(list)
    for life, state, _ in stuck_at(known_at):
        by_status[state.status].append(life)
    rows: Rows = []
    for status, found in sorted(by_status.items()):
        became = Counter(outcome_of(life.token_id) for life in found)
        rows.append(
            {
                "status_then": NAMES[status],
                "stuck": len(found),
                **{outcome: became[outcome] for outcome in OUTCOMES},
                "is_whole": True,
            }
        )
    return rows


@ANSWERS.to("then_and_now.sql")
def _() -> Rows:
    """Seen since, but true then: the lost nights of the 25th and 26th would have told it."""
    at = moment("03-25 23:00")
    known, happened = as_of(at), happened_by(at)
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for token_id, version in happened.items():
        then = known[token_id].seen_as if token_id in known else "not seen yet"
        if then != version.seen_as:
            found[then, version.seen_as].append(token_id)
    assert "0_23_evening" in found["PARTIAL_UPLOAD", "CLOSED"]
    assert "0_22_timeout" in found["PARTIAL_UPLOAD", "TIMED_OUT"]
    return [
        {"known_then": then, "known_now": now, "tokens": len(ids), "for_example": min(ids)}
        for (then, now), ids in sorted(found.items())
    ]
