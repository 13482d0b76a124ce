"""What changed between two moments, and which tokens went."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal

from tests.questions.accounts import ACCOUNT, NOW
from tests.questions.answers import SINCE, Answers, Rows, rounded
from tests.questions.lives import GONE, moment
from tests.questions.truth import (
    NAMES,
    OPEN,
    as_of,
    current,
    history_of,
    quantile,
    status_changes,
    versions,
)

ANSWERS = Answers()


@ANSWERS.to("history_of_token.sql")
def _() -> Rows:
    sent = ["uploaded_size_bytes", "updated_at"]
    attached = ["attached_object_type", "attached_object_id"]
    reasons = [None, sent, ["status", *sent, *attached]]
    return [
        {
            "version": version.version,
            "run_id": version.night.run_id,
            "change_kind": version.kind,
            "status": version.seen_as,
            "updated_at": version.updated_at,
            "valid_from": version.night.published_at,
            "changed_columns": reason,
        }
        for version, reason in zip(history_of("0_23_resumed"), reasons, strict=True)
    ]


@ANSWERS.to("when_did_it_happen.sql")
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


@ANSWERS.to("what_changed_last_night.sql")
def _() -> Rows:
    """Between the last two complete runs: what an incremental one saw since is not of the night."""
    since, until = (night.published_at for night in ACCOUNT.complete[-2:])
    assert ACCOUNT.published[-1] not in ACCOUNT.complete
    rows = [{"since": since, **row} for row in _changes(since, until)]
    assert any(row["was"] == row["became"] == "PARTIAL_UPLOAD" for row in rows)
    return rows


@ANSWERS.to("changed_between.sql")
def _() -> Rows:
    since, until = (ACCOUNT.night_of(day).published_at for day in ("03-24", "03-27"))
    return [row for row in _changes(since, until) if row["was"] != row["became"]]


def _changes(since: datetime, until: datetime) -> Rows:
    """The tokens that have another version than before, by what they were and became."""
    before, after = as_of(since), as_of(until)
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for token_id, version in after.items():
        if version != before.get(token_id):
            was = before[token_id].seen_as if token_id in before else "(none)"
            found[was, version.seen_as].append(token_id)
    rows = [
        {"was": was, "became": became, "tokens": len(ids), "for_example": min(ids)}
        for (was, became), ids in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["tokens"], row["was"], row["became"]))


@ANSWERS.to("first_status.sql")
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


@ANSWERS.to("disappeared.sql")
def _() -> Rows:
    gone = [
        (before, after)
        for before, after in status_changes()
        if before and not after.listed and after.night.published_at >= NOW - timedelta(days=7)
    ]
    for _, after in gone:
        went = [move.at for move in after.life.moves if move.to == GONE]
        assert any(after.happened_after < at < after.observed_at for at in went)
    rows: Rows = [
        {
            "run_id": after.night.run_id,
            "token_id": after.life.token_id,
            "last_status": before.seen_as,
            "is_back": current()[after.life.token_id].listed,
            "went_after": after.happened_after,
            "went_before": after.observed_at,
        }
        for before, after in gone
    ]
    return sorted(rows, key=lambda row: (-row["run_id"], row["token_id"]))


@ANSWERS.to("vanished_unfinished.sql")
def _() -> Rows:
    rows = [
        {
            "token_id": token_id,
            "user_id": version.user_id,
            "last_status": version.status_name,
            "created_at": version.life.created_at,
            "went_after": version.last_listed_at,
            "went_before": version.observed_at,
            "received": version.received,
        }
        for token_id, version in current().items()
        if not version.listed and version.status in OPEN and version.night.published_at >= SINCE
    ]
    assert {row["token_id"] for row in rows} >= {"0_26_wait", "0_23_half", "0_jan_never"}
    return sorted(rows, key=lambda row: (-row["went_before"].timestamp(), row["token_id"]))
