"""The page of all accounts: one row each, the ones in trouble first.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final

from etl.report import words
from etl.report.facts import facts_of
from etl.report.page import page_environment
from etl.report.read import ReportRows, Row
from etl.report.trust import BAD, GOOD, WARNING, Trust, night_in_words, trust
from etl.report.weeks import Week, share_change, started_change

LEVELS: Final = (BAD, WARNING, GOOD)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of one account; no names of users or files."""

    partner_id: int | None
    name: str | None
    """In ``accounts.toml``, if it is asked for by that."""
    read_at: datetime
    address: str | None
    """Of its page, relative to the index; None if there is none."""
    trust: Trust
    freshness: Row | None
    changes: Row | None
    stuck_total: int | None
    """None: not known."""
    failed_total: int | None
    """None: not known, without any run."""
    days: int
    """How many its page shows: those in which ``failed_total`` failed."""
    last_night: str
    """What came of today, or of yesterday if there was no run yet; empty if neither is known."""
    week: Week | None
    started_change: str
    share_change: str

    @property
    def troubles(self) -> int:
        """New ones."""
        if self.changes is None:
            return 0
        return sum(int(self.changes[name]) for name in ("newly_failed", "newly_stuck", "gone_open"))


@dataclass(frozen=True, slots=True)
class Unread:
    """An account that could not be read."""

    name: str
    """In ``accounts.toml``, or its number."""
    reason: str


def entry_of(rows: ReportRows, zone: tzinfo, address: str | None, name: str | None = None) -> Entry:
    """One account as the index shows it."""
    known = facts_of(rows, zone)
    week = known.weeks[0] if known.weeks else None
    before = known.weeks[1] if len(known.weeks) > 1 else None
    compared = (week, before) if week and before else None
    return Entry(
        partner_id=rows.partner_id,
        name=name,
        read_at=rows.read_at,
        address=address,
        trust=trust(rows, zone),
        freshness=rows.freshness,
        changes=rows.changes,
        stuck_total=known.stuck_total,
        failed_total=None if rows.freshness is None else known.failed_total,
        days=len(known.days),
        last_night=_last_night(rows),
        week=week,
        started_change=started_change(*compared) if compared else "",
        share_change=share_change(*compared) if compared else "",
    )


def _last_night(rows: ReportRows) -> str:
    nights = [night for night in rows.nights[:1] if night["outcome"] != "no_run"] or rows.nights[1:]
    return night_in_words(nights[0], False) if nights else ""


def render_index(
    entries: Sequence[Entry], zone: tzinfo, time_zone: str, unread: Sequence[Unread] = ()
) -> str:
    """The index as HTML: red accounts first, then amber, then those with most new troubles.

    ``entries`` is not empty; ``unread`` are named above them.
    """
    ordered = sorted(
        entries,
        key=lambda each: (LEVELS.index(each.trust.level), -each.troubles, each.partner_id or 0),
    )
    made_at = max(each.read_at for each in entries)
    return (
        page_environment(zone)
        .get_template("index.html.j2")
        .render(
            entries=ordered,
            # One of which nothing is known shows today only.
            days=max(each.days for each in entries),
            time_zone=time_zone,
            made_at=made_at,
            newly_failed=_sum(entries, "newly_failed"),
            newly_stuck=_sum(entries, "newly_stuck"),
            gone_open=_sum(entries, "gone_open"),
            not_good=sum(each.trust.level != GOOD for each in entries),
            unread=unread,
            heading=f"Uploads of {words.counted(len(entries) + len(unread), 'account')}",
        )
    )


def _sum(entries: Sequence[Entry], name: str) -> int:
    return sum(int(each.changes[name]) for each in entries if each.changes is not None)
