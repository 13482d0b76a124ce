"""Renders the templates.  Jinja escapes everything that is not our own markup."""

from __future__ import annotations

import re
from datetime import date, datetime, tzinfo
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from etl.report import facts, weeks, words
from etl.report.charts import (
    Chart,
    Draw,
    duration_lines,
    find_drawer,
    stacked_days,
    stacked_shares,
    week_line,
)
from etl.report.read import ReportRows
from etl.report.trust import night_in_words, trust
from etl.resources import program_version

_BREAKS: Final = re.compile(r"(?<=@)|(?=\.)")
TEMPLATES: Final = Path(__file__).parent / "templates"


def render_report(
    rows: ReportRows, zone: tzinfo, *, draw: Draw | None = None, index: str | None = None
) -> str:
    """The page as HTML.  ``draw`` makes the charts; without it the tables stand alone.

    ``index``: address of the page of all accounts, to which a link leads.
    """
    known = facts.facts_of(rows, zone)
    environment = page_environment(zone)
    return environment.get_template("report.html.j2").render(
        rows=rows,
        facts=known,
        trust=trust(rows, zone),
        charts=_charts(known, draw),
        can_draw=draw is not None,
        only_one_run=facts.only_one_run(rows),
        outcomes=facts.OUTCOMES,
        not_succeeded=facts.NOT_SUCCEEDED,
        times=facts.TIMES,
        in_time=facts.IN_TIME,
        index=index,
        shown_of=facts.shown_of,
        night_in_words=night_in_words,
        week_over_week=weeks.week_over_week,
        started_change=weeks.started_change,
        share_change=weeks.share_change,
    )


def report_html(rows: ReportRows, zone: tzinfo, index: str | None = None) -> tuple[str, bool]:
    """The page, and whether it has charts: they need the extra ``report``."""
    draw = find_drawer()
    return render_report(rows, zone, draw=draw, index=index), draw is not None


def _charts(known: facts.Facts, draw: Draw | None) -> dict[str, Chart | None]:
    """The charts; None where there is nothing to show."""
    charts: dict[str, Chart | None] = dict.fromkeys(("weeks", "outcomes", "times", "sizes"))
    if draw is None:
        return charts
    if sum(week.share_in_time is not None for week in known.weeks) >= facts.WEEKS_FOR_A_CHART:
        charts["weeks"] = week_line(
            draw,
            weeks.weeks_caption(known.weeks),
            [
                {
                    "day": week.last_day,
                    "share_in_time": week.share_in_time,
                    "is_final": week.is_share_final,
                }
                for week in reversed(known.weeks)
            ],
            facts.IN_TIME,
        )
    if known.days_with_uploads >= facts.DAYS_FOR_A_CHART:
        charts["outcomes"] = stacked_days(
            draw, facts.outcomes_caption(known), known.days, facts.OUTCOMES
        )
    if known.days_with_times >= facts.DAYS_FOR_A_CHART:
        charts["times"] = duration_lines(draw, facts.times_caption(known), known.days, facts.TIMES)
    if any(row[series.column] for row in known.by_size for series in facts.NOT_SUCCEEDED):
        charts["sizes"] = stacked_shares(
            draw, facts.sizes_caption(known), known.by_size, "size_bucket", facts.NOT_SUCCEEDED
        )
    return charts


@lru_cache(maxsize=4)  # compiling the templates is most of the work of a page without charts
def page_environment(zone: tzinfo) -> Environment:
    """The templates, with what all pages need; the same for the next page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": words.count,
        "size": words.size,
        "duration": words.duration,
        "visible": words.visible,
        "with_breaks": _with_breaks,
        "moment": partial(words.moment, zone=zone),
        "moment_in_words": partial(words.moment_in_words, zone=zone),
        "day_in_words": words.day_in_words,
        "machine_time": _machine_time,
        # Of a chart, which contains no text of a user.
        "drawing": Markup,
    }
    environment.globals |= {
        "percent": words.percent,
        "counted": words.counted,
        "program_version": program_version(),
        "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),  # noqa: S704  ours
    }
    return environment


def _with_breaks(text: str) -> str:
    """An address of e-mail may end a line behind its @ and before its dots, not within a word."""
    return Markup("<wbr>").join(_BREAKS.split(text)) if "@" in text else text


def _machine_time(value: date) -> str:
    """For ``<time datetime>``."""
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value.isoformat()
