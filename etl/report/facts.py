"""What follows from the rows: days without gaps, totals, notes on what cannot be known.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta, tzinfo
from typing import Any, Final

from etl.report.charts import Caption, Series
from etl.report.read import ReportRows, Row
from etl.report.weeks import Week, weeks_of
from etl.report.words import counted, day_in_words, duration, moment_in_words, percent

OUTCOMES: Final = (
    Series("succeeded", "Succeeded", "--succeeded"),
    Series("still_open", "Still open", "--open"),
    Series("failed", "Failed", "--failed"),
    Series("abandoned", "Abandoned", "--abandoned"),
    Series("deleted", "Deleted", "--deleted"),
)
NOT_SUCCEEDED: Final = OUTCOMES[2:]
TIMES: Final = (
    Series("p50_seconds", "Half of them took at most (p50)", "--succeeded"),
    Series("p95_seconds", "95 % of them took at most (p95)", "--abandoned", dashed=True),
)
IN_TIME: Final = Series("share_in_time", "Closed within 24 hours", "--succeeded")
COUNTS: Final = ("started", *(series.column for series in OUTCOMES))
DAYS_FOR_A_CHART: Final = 2
"""A chart of a single day would say less than the sentence and the table instead of it."""
WEEKS_FOR_A_CHART: Final = 3
"""Two are compared by the table."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the template shows beside the rows themselves."""

    days: list[Row]
    """One row per day, zeros where no upload was created; p50_seconds and p95_seconds are None
    where none of the uploads was completed.  is_mature: no later day can change the figures."""
    total: dict[str, int]
    by_size: list[Row]
    weeks: list[Week]
    """Newest first."""
    days_with_uploads: int
    days_with_times: int
    days_not_final: int
    stuck_total: int | None
    """None: no run has read all open uploads, so it is not known."""
    failed_total: int
    vanished_total: int
    user_total: int
    notes: list[str]
    """What limits the figures by day."""


def facts_of(rows: ReportRows, zone: tzinfo) -> Facts:
    """Sort the rows into what the page shows."""
    shown = (rows.last_day - rows.first_day).days + 1
    every_day = [rows.first_day + timedelta(days=number) for number in range(shown)]
    by_day = {row["day"]: row for row in rows.outcomes if row["size_bucket"] is None}
    days = [_day(rows, day, by_day.get(day)) for day in every_day]
    return Facts(
        days=days,
        total={name: sum(day[name] for day in days) for name in COUNTS},
        by_size=_by_size(rows),
        weeks=weeks_of(rows),
        days_with_uploads=sum(day["started"] > 0 for day in days),
        days_with_times=sum(day["p50_seconds"] is not None for day in days),
        days_not_final=sum(not day["is_mature"] for day in days),
        stuck_total=_total(rows.stuck) if _has_seen_open(rows) else None,
        failed_total=_total(rows.failed),
        vanished_total=_total(rows.vanished),
        user_total=_total(rows.users),
        notes=_notes(rows, zone, sum(not day["is_mature"] for day in days)),
    )


def _day(rows: ReportRows, day: date, row: Row | None) -> Row:
    counts = {name: _int(row, name) for name in (*COUNTS, "completed")}
    # A day without uploads may still get some until it is over.
    is_over = rows.last_full_day is not None and day <= rows.last_full_day
    return {
        "day": day,
        **counts,
        **{name: row and row[name] for name in ("p50_seconds", "p95_seconds")},
        "is_mature": is_over if row is None else row["is_mature"],
    }


def _by_size(rows: ReportRows) -> list[Row]:
    """The days shown added up, in the order of the sizes."""
    sizes: dict[str, Row] = {}
    of_days_shown = [
        row
        for row in rows.outcomes
        if row["size_bucket"] is not None and rows.first_day <= row["day"] <= rows.last_day
    ]
    for row in sorted(of_days_shown, key=lambda row: int(row["size_bucket_order"])):
        size = sizes.setdefault(
            row["size_bucket"],
            {"size_bucket": row["size_bucket"], **dict.fromkeys((*COUNTS, "bytes_received"), 0)},
        )
        for name in (*COUNTS, "bytes_received"):
            size[name] += _int(row, name)
    return list(sizes.values())


def _int(row: Mapping[str, Any] | None, name: str) -> int:
    return 0 if row is None or row[name] is None else int(row[name])


def _total(rows: Sequence[Row]) -> int:
    return int(rows[0]["total"]) if rows else 0


def _has_seen_open(rows: ReportRows) -> bool:
    return rows.freshness is not None and rows.freshness["open_seen_at"] is not None


def _notes(rows: ReportRows, zone: tzinfo, days_not_final: int) -> list[str]:
    freshness = rows.freshness
    if freshness is None or freshness["last_published_at"] is None:
        return []
    notes = []
    published = freshness["last_published_at"].astimezone(zone)
    if days_not_final:
        days = counted(days_not_final, "day")
        notes.append(
            f"The figures of {days} may still change. An upload counts as abandoned after 7 days "
            "without progress, and among the times only when it is closed: so recent days look "
            "better than they will."
        )
    if rows.last_day == published.date():
        notes.append(
            f"{day_in_words(rows.last_day)} is counted up to {published:%H:%M}, when the last run "
            "was published."
        )
    else:
        notes.append(
            f"The newest upload is of {day_in_words(rows.last_day)}, so the days shown end there; "
            f"the last run was published on {moment_in_words(published, zone)}."
        )
    first = freshness["first_published_at"]
    if first.astimezone(zone).date() > rows.first_day:
        notes.append(
            f"The history begins on {moment_in_words(first, zone)}: of the days before, only the "
            "uploads that were still listed then are counted."
        )
    return notes


def only_one_run(rows: ReportRows) -> bool:
    """Whether too few runs are published to know of changes between two."""
    return rows.freshness is not None and rows.freshness["published_runs"] == 1


def shown_of(shown: int, total: int, noun: str) -> str:
    """``50 of 1,234 uploads``, or ``7 uploads`` if these are all."""
    return counted(total, noun) if shown == total else f"{shown:,} of {counted(total, noun)}"


def outcomes_caption(known: Facts) -> Caption:
    """For the chart of outcomes by day."""
    busiest = max(known.days, key=lambda day: int(day["started"]))
    return Caption(
        "chart-outcomes",
        "Uploads created each day, by what became of them",
        f"Stacked bars, one per day, {counted(known.total['started'], 'upload')} in all. "
        f"The busiest day is {day_in_words(busiest['day'])} with "
        f"{counted(busiest['started'], 'upload')}.",
    )


def times_caption(known: Facts) -> Caption:
    """For the chart of the time to complete."""
    ranges = []
    for series, name in zip(TIMES, ("median", "95th percentile"), strict=True):
        values = [day[series.column] for day in known.days if day[series.column] is not None]
        ranges.append(
            f"The {name} of a day is between {duration(min(values))} and {duration(max(values))}."
        )
    return Caption(
        "chart-times",
        "Time from the creation of an upload to its completion, by day of creation",
        f"Two lines on a logarithmic axis. {' '.join(ranges)}",
    )


def sizes_caption(known: Facts) -> Caption:
    """For the chart of failures by size."""
    worst = max(known.by_size, key=lambda row: _lost(row) / row["started"])
    return Caption(
        "chart-sizes",
        "Share of uploads that failed, were abandoned or were deleted, by size of the file",
        f"Horizontal bars. The largest share is {percent(_lost(worst), worst['started'])} of the "
        f"uploads of size {worst['size_bucket']}.",
    )


def _lost(row: Row) -> int:
    return sum(int(row[series.column]) for series in NOT_SUCCEEDED)
