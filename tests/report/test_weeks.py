"""Week over week: full days only, the same days of the week, and what was closed in time."""

from __future__ import annotations

from datetime import timedelta

from etl.report.read import WEEKS
from etl.report.weeks import Week, share_change, started_change, week_over_week, weeks_of
from tests.support.report_sample import LAST_DAY, outcome, rows

LAST_FULL_DAY = LAST_DAY - timedelta(days=1)


def weeks(*days: dict[str, object]) -> list[Week]:
    return weeks_of(rows(outcomes=[outcome(**day) for day in days]))


def ago(days: int, **columns: object) -> dict[str, object]:
    """Of the day so many days before the last full one."""
    return {"day": LAST_FULL_DAY - timedelta(days=days), "is_mature": True, **columns}


def test_a_week_is_seven_full_days_and_the_day_that_is_not_over_is_in_none() -> None:
    found = weeks(
        ago(-1, started=1_000),
        ago(0, started=1, is_mature=False),
        ago(6, started=20),
        ago(6, started=500, size_bucket="unknown"),
        ago(7, started=300),
        ago(13, started=4_000),
    )

    assert [(week.last_day, week.started, week.is_mature) for week in found] == [
        (LAST_FULL_DAY, 21, False),
        (LAST_FULL_DAY - timedelta(days=7), 4_300, True),
    ]
    assert {(week.last_day - week.first_day).days for week in found} == {6}


def test_a_week_without_uploads_counts_unless_none_was_before() -> None:
    assert [week.started for week in weeks(ago(15, started=3))] == [0, 0, 3]
    assert weeks() == []
    assert len(weeks(ago(7 * WEEKS - 1, started=1))) == WEEKS
    assert weeks(ago(7 * WEEKS, started=1)) == []
    assert weeks_of(rows(last_full_day=None, outcomes=[outcome(started=1)])) == []


def test_the_week_is_compared_with_the_one_before() -> None:
    newest, before = weeks(
        ago(0, started=110, old_enough=100, closed_in_time=90),
        ago(7, started=100, old_enough=100, closed_in_time=95),
    )
    text = " ".join(week_over_week([newest, before])).replace("\u00a0", " ")

    assert text == (
        "In the 7 days to 22 November 2026, 110 uploads were created, 10.0 % more than in the 7 "
        "days before (100). Of the 100 whose 24 hours were over, at least 90.0 % were closed "
        "within 24 hours of their creation, after 95.0 % in the week before."
    )
    shown = (started_change(newest, before), share_change(newest, before))
    assert shown == ("+10.0\u00a0%", "\u22125.0\u00a0points")
    assert started_change(before, before) == "\u00b10\u00a0%"


def test_a_week_that_cannot_be_compared_is_told_alone() -> None:
    (newest,) = weeks(ago(0, started=1, old_enough=0))

    assert week_over_week([newest]) == ["In the 7 days to 22 November 2026, 1 upload was created."]
    first, empty, _ = weeks(ago(0, started=2, old_enough=2), ago(14, started=2))
    assert week_over_week([first, empty])[0].endswith("2 uploads were created.")
    assert (started_change(first, empty), share_change(first, empty)) == ("", "")
