"""How fresh and how complete: the certificate in plain words."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest

from etl.report.trust import trust
from tests.support.report_sample import (
    HOUR,
    LAST_DAY,
    NOW,
    PUBLISHED,
    certificate,
    freshness,
    night,
    nothing,
    rows,
    run,
)

DAY = 24 * HOUR


def said(**columns: Any) -> tuple[str, str, str]:
    """Level, headline and sentences."""
    told = trust(rows(**columns), UTC)
    return told.level, told.headline, " ".join(told.sentences)


def test_a_complete_night_is_told_in_one_sentence() -> None:
    assert said() == (
        "good",
        "Complete as of 23 November 2026 at 02:31.",
        "On 23 November 2026 from 02:01 to 02:31 the last complete run read every second of the "
        "createdAt line, so every upload that was listed all that time is in here. "
        "When this page was made, on 23 November 2026 at 08:00, that was 5 hours ago.",
    )


def test_what_a_complete_run_left_out_is_told() -> None:
    level, headline, text = said(certificates=[certificate(unreadable=1, rejected=2)])

    assert (level, headline) == (
        "warning",
        "Complete but for what is said here, as of 23 November 2026 at 02:31.",
    )
    assert "every second" not in text
    assert (
        "is in here, except 1 upload that Kaltura itself failed to show and 2 rows that could not "
        "be loaded and were set aside."
    ) in text


def test_a_second_that_kept_changing_is_not_called_an_upload() -> None:
    """``unreadable`` counts it as one; how many uploads were created in it is not known."""
    level, _, text = said(certificates=[certificate(unreadable=1, busy_seconds=1)])

    assert level == "warning"
    assert "is in here, except those created in 1 second that kept changing." in text
    assert "1 upload" not in text
    text = said(certificates=[certificate(unreadable=5, busy_seconds=2, rejected=1)])[2]
    assert (
        "except 3 uploads that Kaltura itself failed to show, those created in 2 seconds that kept "
        "changing and 1 row that could not be loaded and was set aside."
    ) in text


def test_old_data_are_called_old() -> None:
    old = PUBLISHED - 3 * DAY
    level, headline, text = said(
        freshness=freshness(last_complete_at=old, last_published_at=old),
        certificates=[certificate(published_at=old, walk_started_at=old)],
    )

    assert (level, headline) == (
        "warning",
        "Complete as of 20 November 2026 at 02:31: 3 days old when this page was made.",
    )
    assert (
        "When this page was made, on 23 November 2026 at 08:00, no run had read the whole account "
        "for 3 days"
    ) in text


@pytest.mark.parametrize(
    ("mode", "coverage", "open_coverage", "words"),
    [
        (
            "backfill",
            "{[1793491200,1793577600)}",
            "{}",
            "a backfill run brought a part up to date: it read the uploads created from "
            "1 November 2026 at 00:00 to 2 November 2026 at 00:00.",
        ),
        (
            "incremental",
            "{[1793491200,)}",
            "{(,)}",
            "an incremental run brought a part up to date: it read the uploads created from "
            "1 November 2026 at 00:00 to the end, and all open ones.",
        ),
        ("backfill", "{}", "{}", "it looked up single uploads."),
        (
            "backfill",
            "{[1793491200,1793494800),[1793498400,1793502000),[1793505600,1793509200),"
            "[1793512800,1793516400)}",
            "{}",
            "and from 1 November 2026 at 04:00 to 1 November 2026 at 05:00, and 1 more span.",
        ),
    ],
)
def test_a_part_that_is_newer_is_told(
    mode: str, coverage: str, open_coverage: str, words: str
) -> None:
    later = certificate(
        mode=mode,
        coverage=coverage,
        open_coverage=open_coverage,
        published_at=NOW - HOUR,
        is_complete=False,
    )
    level, headline, text = said(certificates=[certificate(), later])

    assert level == "good"
    assert headline == "Complete as of 23 November 2026 at 02:31."
    assert words in text
    assert "What vanished since the complete run may still be shown." in text


def test_a_warehouse_without_a_complete_run_says_so_first() -> None:
    level, headline, text = said(
        freshness=freshness(last_complete_at=None),
        certificates=[certificate(mode="backfill", coverage="{[1793491200,)}", is_complete=False)],
    )

    assert (level, headline) == ("bad", "Not complete: no run has read the whole account yet.")
    assert "a backfill run was published: it read the uploads created from 1 November 2026" in text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("failed", "The last run, begun on 23 November 2026 at 07:00, failed and changed nothing"),
        ("abandoned", "The last run, begun on 23 November 2026 at 07:00, broke off and changed"),
        (
            "running",
            "When this page was made, a run was at work, since 23 November 2026 at 07:00.",
        ),
    ],
)
def test_what_the_newest_run_did_is_told(status: str, words: str) -> None:
    newest = run(run_id=41, status=status, started_at=NOW - HOUR)

    assert words in said(runs=[newest, run()])[2]


def test_an_empty_warehouse_says_what_to_do() -> None:
    told = trust(nothing(), UTC)

    assert (told.level, told.headline) == ("bad", "This warehouse is empty.")
    assert "kaltura-etl sync" in told.sentences[-1]


def test_nights_that_cost_precision_are_told_and_change_no_colour() -> None:
    outcomes = ("no_run", "complete", "failed", "no_run", "partial", "complete", "complete")
    nights = [
        night(day=LAST_DAY - number * DAY, outcome=outcome)
        for number, outcome in enumerate([*outcomes, "complete", "failed"])
    ]

    level, headline, text = said(nights=nights)

    assert (level, headline) == ("good", "Complete as of 23 November 2026 at 02:31.")
    assert text.endswith(
        "Of the 7 days before 23 November 2026, 2 had no published run: 20 November 2026 (no run), "
        "21 November 2026 (failed). When something happened is known less precisely for these."
    )
    assert "no published run" not in said(nights=nights[:2])[2]  # today may still get its run
