"""Rows as the queries give them, and a page read back as a reader gets it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

from etl.report.charts import Draw, Spec, find_drawer
from etl.report.page import render_report
from etl.report.read import ReportRows, Row

PARTNER = 102
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
PUBLISHED = datetime(2026, 11, 23, 2, 31, tzinfo=UTC)
LAST_DAY = PUBLISHED.date()
HOUR = timedelta(hours=1)

SIZES = ["< 1 MB", "1-10 MB", "10-100 MB", "100 MB-1 GB", "1-10 GB", "> 10 GB", "unknown"]

HOSTILE = {
    "script": "<script>document.title='gotcha';window.hit=1</script>",
    "image": '"><img src=x onerror="window.hit=1">.mp4',
    "leave": "</td></table></style></svg>--><script>window.hit=1</script>",
    "address": "javascript:window.hit=1",
    "template": "{{ 7 * 7 }}{% raw %}${7*7}",
    "formula": '=HYPERLINK("http://evil.invalid/","open")',
    "entity": "&lt;b&gt;&amp;amp;&#0;",
    "bidi": "holiday\u202efdp.exe\u2066",
    "nul": "a\ufffdb",
    "long": "x" * 3_000 + ".mov",
    "line": "a\nb\r\n\tc",
    "arabic": "مقطع فيديو.mp4",
    "marks": "Z" + "\u0301\u0325" * 60,
    "empty": "",
}
"""File names and user ids that somebody could choose."""


def freshness(**columns: Any) -> Row:
    return {
        "partner_id": PARTNER,
        "last_published_at": PUBLISHED,
        "last_complete_at": PUBLISHED,
        "tokens_listed": 1_000,
        "tokens_known": 1_100,
        "published_runs": 40,
        "first_published_at": PUBLISHED - 60 * 24 * HOUR,
        "open_seen_at": PUBLISHED - HOUR / 2,
        "open_seen_day": LAST_DAY,
        "since_published_at": PUBLISHED - 24 * HOUR,
        "since_seen_at": PUBLISHED - 24 * HOUR - HOUR / 2,
        "last_day": LAST_DAY,
        "read_at": NOW,
    } | columns


def change(**columns: Any) -> Row:
    """In all, or of a user if there is a ``user_id``."""
    counts = ("first_seen", "closed", "newly_stuck", "newly_failed", "gone", "gone_open", "total")
    return {
        "is_total": "user_id" not in columns,
        "user_id": None,
        **dict.fromkeys(counts, Decimal(0)),
    } | columns


def certificate(**columns: Any) -> Row:
    return {
        "run_id": 40,
        "mode": "full",
        "walk_started_at": PUBLISHED - HOUR / 2,
        "published_at": PUBLISHED,
        "coverage": "{(,)}",
        "open_coverage": "{}",
        "unreadable": 0,
        "busy_seconds": 0,
        "rejected": 0,
        "is_complete": True,
    } | columns


def run(**columns: Any) -> Row:
    return {
        "run_id": 40,
        "status": "succeeded",
        "started_at": PUBLISHED - HOUR / 2,
        "error_kind": None,
    } | columns


def night(**columns: Any) -> Row:
    return {
        "day": LAST_DAY,
        "outcome": "complete",
        "runs": 1,
        "complete_at": PUBLISHED,
        "last_attempt_at": PUBLISHED - HOUR / 2,
        "error_kind": None,
        "error_message": None,
        **dict.fromkeys(("inserted", "changed", "absent", "rejected"), Decimal(0)),
    } | columns


def outcome(**columns: Any) -> Row:
    """Of a day, or of a size on that day if there is a ``size_bucket``."""
    counts = (
        *("started", "succeeded", "still_open", "failed", "abandoned", "deleted", "completed"),
        *("old_enough", "closed_in_time"),
    )
    return {
        "day": LAST_DAY,
        "size_bucket": None,
        "size_bucket_order": SIZES.index(columns.get("size_bucket", "unknown")) + 1,
        "is_mature": False,
        **dict.fromkeys(counts, 0),
        "bytes_received": None,
        "p50_seconds": None,
        "p95_seconds": None,
    } | columns


def upload(number: int = 0, total: int = 1, **columns: Any) -> Row:
    """Of the stuck, of the failed, and of the vanished."""
    return {
        "token_id": f"0_token{number}",
        "user_id": "anna",
        "file_name": "film.mp4",
        "status": "PARTIAL_UPLOAD",
        "created_at": PUBLISHED - 100 * HOUR,
        "last_moved_at": PUBLISHED - 99 * HOUR,
        "stuck_for": 98 * HOUR,
        "file_size_bytes": 2_000_000,
        "uploaded_size_bytes": 500_000,
        "percent_received": Decimal("25.0"),
        "last_listed_at": PUBLISHED - 24 * HOUR,
        "absence_confirmed_at": PUBLISHED,
        "failed_at": PUBLISHED - 30 * HOUR,
        "uploaded_again_at": None,
        "to_act_on": total,
        "is_new": False,
        **dict.fromkeys(("over_a_week", "over_a_month", "over_a_year"), 0),
        "oldest_moved_at": PUBLISHED - 99 * HOUR,
        "total": total,
    } | columns


def user(**columns: Any) -> Row:
    counts = ("uploads", "succeeded", "failed", "abandoned")
    return {
        "user_id": "anna",
        **dict.fromkeys(counts, 1),
        "bytes_received": Decimal(1_000),
        "last_upload_at": PUBLISHED,
        "median_seconds_to_complete": 61.5,
        "total": 1,
    } | columns


def month() -> list[Row]:
    """Outcomes of 30 days and of two sizes."""
    days = [
        outcome(
            day=LAST_DAY - timedelta(days=number),
            started=20 + number,
            succeeded=15 + number,
            failed=3,
            still_open=2,
            completed=15,
            p50_seconds=40.0 + number,
            p95_seconds=4_000.0,
            old_enough=20 + number if number else 0,
            closed_in_time=15 + number % 5 if number else 0,
            is_mature=number > 7,
        )
        for number in range(30)
    ]
    sizes = [
        outcome(size_bucket=name, started=500, succeeded=450, failed=50, bytes_received=Decimal(9))
        for name in ("100 MB-1 GB", "< 1 MB")
    ]
    return days + sizes


def rows(**columns: Any) -> ReportRows:
    """A published, complete account; ``columns`` replace what is in it."""
    known: dict[str, Any] = {
        "partner_id": PARTNER,
        "time_zone": "UTC",
        "first_day": LAST_DAY - timedelta(days=29),
        "last_day": LAST_DAY,
        "read_at": NOW,
        "freshness": freshness(),
        "certificates": [certificate()],
        "seen_from": LAST_DAY - timedelta(days=29),
        "last_full_day": LAST_DAY - timedelta(days=1),
        "changes": change(),
        "runs": [run()],
    }
    return ReportRows(**(known | columns))


def nothing(partner_id: int | None = None) -> ReportRows:
    """What is read of a warehouse, or an account, without any run."""
    today = date(2026, 11, 23)
    return ReportRows(
        partner_id=partner_id, time_zone="UTC", first_day=today, last_day=today, read_at=NOW
    )


class Page(HTMLParser):
    """What is in a page, and whether what is opened is closed."""

    VOID = frozenset({"meta", "link", "br", "wbr", "path", "line", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if data.strip() and (not self._open or self._open[-1] != "style"):
            self.texts.append(" ".join(data.replace("\u00a0", " ").split()))

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def ids(self) -> list[str | None]:
        return [value for name, value in self.attributes if name == "id"]


def drawer() -> Draw:
    """What draws the charts; one that was drawn is not drawn again, since drawing is slow."""
    draw = find_drawer()
    assert draw is not None, "the extra is among what is installed for tests"
    drawn: dict[str, str] = {}

    def draw_once(spec: Spec) -> str:
        key = json.dumps(spec)
        if key not in drawn:
            drawn[key] = draw(spec)
        return drawn[key]

    return draw_once


def page_of(read: ReportRows, **options: Any) -> Page:
    return Page(render_report(read, UTC, **options))
