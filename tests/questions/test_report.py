"""The morning page of the known accounts, compared with their lives."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

from etl.report.read import FAILED_ROWS, read_report
from tests.questions.accounts import ACCOUNTS, LivedAccount
from tests.questions.lives import CLOSED
from tests.questions.truth import (
    OPEN,
    as_of,
    current,
    failure_of,
    looks,
    open_seen_at,
    outcome_of,
    stuck_at,
)

DAYS = 30


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=map(str, ACCOUNTS))
def test_what_changed_and_what_failed(account: LivedAccount, known_url: str) -> None:
    rows = read_report(
        known_url, "kaltura", partner_id=account.partner_id, days=DAYS, time_zone="UTC"
    )

    since = account.complete[-2].published_at
    seen_at = next(
        look.walk_began_at for look in looks(account) if look.night.published_at == since
    )
    before, now = as_of(since, account), current(account)
    failed = [token_id for token_id in now if outcome_of(token_id, account) == "failed"]
    gone = [
        version
        for token_id, version in now.items()
        if not version.listed and (token_id not in before or before[token_id].listed)
    ]
    assert rows.freshness is not None
    assert rows.changes is not None
    assert rows.freshness["since_published_at"] == since
    assert {
        name: int(rows.changes[name])
        for name in ("first_seen", "closed", "newly_failed", "newly_stuck", "gone", "gone_open")
    } == {
        "first_seen": len(now.keys() - before.keys()),
        "closed": sum(
            version.status == CLOSED
            and (token_id not in before or before[token_id].status != CLOSED)
            for token_id, version in now.items()
        ),
        "newly_failed": sum(
            failure_of(token_id, account).version.night.published_at > since for token_id in failed
        ),
        "newly_stuck": sum(
            moved_at > seen_at - timedelta(hours=24)
            for _, _, moved_at in stuck_at(open_seen_at(None, account), account)
        ),
        "gone": len(gone),
        "gone_open": sum(version.status in OPEN for version in gone),
    }
    first_day = account.published[-1].published_at.date() - timedelta(days=DAYS - 1)
    begin = datetime.combine(first_day, time(), UTC)
    failures = {token_id: failure_of(token_id, account) for token_id in failed}
    recent = {token: each for token, each in failures.items() if each.at >= begin}
    assert sum(row["is_new"] for row in rows.failed) == int(rows.changes["newly_failed"])
    assert {row["total"] for row in rows.failed} == {len(recent)}
    assert len(rows.failed) == min(len(recent), FAILED_ROWS)
    for row in rows.failed:
        failure = recent[row["token_id"]]
        assert row["failed_at"] == failure.at
        assert row["is_new"] == (failure.version.night.published_at > since)
        again = [
            life.created_at
            for life in account.lives
            if life.token_id in now
            and now[life.token_id].user_id == now[row["token_id"]].user_id
            and life.file_name == failure.version.life.file_name
            and life.created_at > failure.version.life.created_at
            and outcome_of(life.token_id, account) == "succeeded"
        ]
        assert row["uploaded_again_at"] == min(again, default=None)
