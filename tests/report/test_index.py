"""The page of all accounts."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from etl.report.index import entry_of, render_index
from tests.support.report_sample import (
    PUBLISHED,
    Page,
    certificate,
    change,
    freshness,
    month,
    night,
    nothing,
    rows,
    upload,
)

DAY = timedelta(days=1)


def entry(partner_id: int, address: str | None = None, **columns: Any) -> Any:
    return entry_of(rows(**{"outcomes": month(), **columns}, partner_id=partner_id), UTC, address)


def test_the_accounts_in_trouble_come_first() -> None:
    old = PUBLISHED - 3 * DAY
    page = Page(
        render_index(
            [
                entry(1001, "./page-1001.html"),
                entry(1002, "./page-1002.html", changes=change(newly_failed=8, newly_stuck=3)),
                entry(
                    1003,
                    "./page-1003.html",
                    freshness=freshness(last_complete_at=old, last_published_at=old),
                    certificates=[certificate(published_at=old)],
                ),
                entry(
                    1004,
                    freshness=freshness(last_complete_at=None, since_published_at=None),
                    certificates=[certificate(mode="backfill", is_complete=False)],
                    changes=None,
                ),
            ],
            UTC,
            "UTC",
        )
    )

    accounts = [text for text in page.texts if text.startswith("100")]
    assert accounts == ["1004", "1003", "1002", "1001"]
    links = [value for name, value in page.attributes if name == "href"]
    assert links[-3:] == ["./page-1003.html", "./page-1002.html", "./page-1001.html"]
    assert "2 accounts are not complete or not up to date" in page.text
    assert "8 uploads newly failed, 3 newly stuck, 0 gone while open" in page.text
    assert "Complete as of 20 November 2026 at 02:31: 3 days old" in page.text
    assert "None" not in page.text
    assert "script" not in page.tags


def test_each_account_has_its_figures() -> None:
    read: dict[str, Any] = {
        "changes": change(newly_failed=8, newly_stuck=13, gone=21, gone_open=9),
        "stuck": [upload(total=168)],
        "failed": [upload(total=220)],
        "nights": [night(outcome="no_run"), night(day=PUBLISHED.date() - DAY, outcome="failed")],
    }
    page = Page(render_index([entry(7, **read)], UTC, "UTC"))

    assert (
        "7 Complete as of 23 November 2026 at 02:31. 8 220 13 168 21 9 "
        "2026-11-22 02:31 2026-11-23 02:31 failed"
    ) in page.text
    assert "All are complete" in page.text


def test_an_account_without_runs_says_nothing_of_the_others() -> None:
    """It comes first, and shows today only."""
    accounts = [entry(7, failed=[upload(total=220)]), entry_of(nothing(3), UTC, None)]
    page = Page(render_index(accounts, UTC, "UTC"))

    assert "Newly failed in 30 days" in page.text
    assert "Nothing is known of account 3. \u2013 \u2013 \u2013 \u2013 \u2013 \u2013" in page.text
