"""Week over week: seven full days at a time, and the share that was closed in time.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from etl.report.charts import Caption
from etl.report.read import WEEKS, ReportRows, Row
from etl.report.words import counted, day_in_words, percent

SUMS: Final = (
    *("started", "succeeded", "still_open", "failed", "abandoned", "deleted"),
    *("old_enough", "closed_in_time"),
)
_NBSP: Final = "\u00a0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """Seven full days of creation: counts of uploads."""

    first_day: date
    last_day: date
    is_mature: bool
    """Whether no later day can change the figures."""
    started: int
    succeeded: int
    still_open: int
    failed: int
    abandoned: int
    deleted: int
    old_enough: int
    """Of ``started``: those whose 24 hours were over when all open uploads were last read."""
    closed_in_time: int
    """Of ``old_enough``: closed within 24 hours of their creation."""

    @property
    def share_in_time(self) -> Decimal | None:
        """Per cent of those old enough; None if there are none."""
        return Decimal(100 * self.closed_in_time) / self.old_enough if self.old_enough else None

    @property
    def is_share_final(self) -> bool:
        """Whether the 24 hours of all of them are over."""
        return self.old_enough == self.started


def weeks_of(rows: ReportRows) -> list[Week]:
    """The last weeks, newest first, without those before the first upload.

    They end with the last full day, so all are of seven whole days, and the same days of the week.
    """
    if rows.last_full_day is None:
        return []
    by_day = {row["day"]: row for row in rows.outcomes if row["size_bucket"] is None}
    last_days = [rows.last_full_day - timedelta(days=7 * number) for number in range(WEEKS)]
    weeks = [_week(last_day, by_day) for last_day in last_days]
    while weeks and not weeks[-1].started:
        weeks.pop()
    return weeks


def _week(last_day: date, by_day: dict[date, Row]) -> Week:
    days = [last_day - timedelta(days=number) for number in range(7)]
    known = [by_day[day] for day in days if day in by_day]
    sums = {name: sum(int(row[name]) for row in known) for name in SUMS}
    return Week(
        first_day=days[-1],
        last_day=last_day,
        is_mature=all(row["is_mature"] for row in known),
        **sums,
    )


def week_over_week(weeks: Sequence[Week]) -> list[str]:
    """The newest week, and how it differs from the one before: a sentence or two."""
    newest = weeks[0]
    before = weeks[1] if len(weeks) > 1 else None
    created = "was" if newest.started == 1 else "were"
    first = (
        f"In the 7 days to {day_in_words(newest.last_day)}, {counted(newest.started, 'upload')} "
        f"{created} created"
    )
    if before is not None and before.started:
        first += f", {_change(newest, before)} in the 7 days before ({before.started:,})"
    sentences = [f"{first}."]
    share = newest.share_in_time
    if share is not None:
        second = (
            f"Of the {newest.old_enough:,} whose 24 hours were over, at least "
            f"{percent(newest.closed_in_time, newest.old_enough)} were closed within 24 hours of "
            "their creation"
        )
        if before is not None and before.share_in_time is not None:
            second += (
                f", after {percent(before.closed_in_time, before.old_enough)} in the week before"
            )
        sentences.append(f"{second}.")
    return sentences


def _change(newest: Week, before: Week) -> str:
    if newest.started == before.started:
        return "as many as"
    word = "more" if newest.started > before.started else "fewer"
    return f"{percent(abs(newest.started - before.started), before.started)} {word} than"


def started_change(newest: Week, before: Week) -> str:
    """For a table: ``+8.1 %`` of the uploads of the week before; empty if that had none."""
    if not before.started:
        return ""
    change = percent(abs(newest.started - before.started), before.started)
    return f"{_sign(newest.started - before.started)}{change}"


def share_change(newest: Week, before: Week) -> str:
    """For a table: ``+1.1 points`` of ``share_in_time``; empty if one of the two is not known."""
    if newest.share_in_time is None or before.share_in_time is None:
        return ""
    change = round(newest.share_in_time - before.share_in_time, 1)
    return f"{_sign(change)}{abs(change):.1f}{_NBSP}points"


def _sign(number: int | Decimal) -> str:
    return "+" if number > 0 else "\u2212" if number < 0 else "\u00b1"


def weeks_caption(weeks: Sequence[Week]) -> Caption:
    """For the chart of the share closed in time; at least one week must have one."""
    known = [week for week in weeks if week.share_in_time is not None]
    low = min(known, key=lambda week: week.share_in_time or 0)
    high = max(known, key=lambda week: week.share_in_time or 0)
    return Caption(
        "chart-weeks",
        "Share of uploads closed within 24 hours of their creation, by week",
        f"A line over {counted(len(weeks), 'week')}. The share of a week is between "
        f"{percent(low.closed_in_time, low.old_enough)} and "
        f"{percent(high.closed_in_time, high.old_enough)}.",
    )
