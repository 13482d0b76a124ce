"""Charts as SVG, drawn by Vega-Lite (vl-convert-python, in the extra ``report``).

Colours are CSS variables of the page, so that one drawing serves light, dark and paper.  Each chart
is drawn twice, for wide and for narrow screens: scaled down, its text could not be read.  What goes
in are dates, numbers and names that this program gives; nothing that a user has typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

WIDE: Final = 920
NARROW: Final = 340
FONT_SIZE: Final = 12
DAY_LABELS: Final = 10
DURATION_TICKS: Final = (1, 10, 60, 600, 3_600, 6 * 3_600, 86_400, 7 * 86_400, 30 * 86_400)
"""Seconds, on an axis of powers."""
DURATION_LABELS: Final = ("1 s", "10 s", "1 min", "10 min", "1 h", "6 h", "1 d", "7 d", "30 d")
PALE: Final = 0.25
"""Opacity of the inside of a bar that may still change; its outline has the full colour."""
_OPENING = re.compile(r"<svg [^>]*>")
_NOT_NEEDED = re.compile(
    r' (?:aria-hidden="true"|aria-roledescription="[^"]*"|role="[^"]*"|pointer-events="none"'
    r'|opacity="1")|<path [^>]*?(?:display="none"|d="M0,0h0v0h0Z")/>'
)
"""What a chart without scripts, described by its page, does not need: a third of its size."""
_LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}(?![\d%])")

Spec = dict[str, Any]
Draw = Callable[[Spec], str]


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a chart: the column that it shows, its name, and the page's CSS variable."""

    column: str
    label: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Caption:
    """What a chart is and shows, for screen readers.  ``name`` is for ids."""

    name: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart in both widths: SVG that may stand in the page as it is."""

    wide: str
    narrow: str


def find_drawer() -> Draw | None:
    """The function that renders a Vega-Lite specification as SVG; None without the extra."""
    try:
        import vl_convert  # noqa: PLC0415  an extra
    except ImportError:
        return None

    def draw(spec: Spec) -> str:
        # Nothing that a specification names is fetched.
        return str(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))

    return draw


def stacked_days(
    draw: Draw, caption: Caption, days: Sequence[Mapping[str, Any]], series: Sequence[Series]
) -> Chart:
    """One bar per day, stacked in the order of ``series``, the first one at the bottom.

    A day that is not ``is_mature`` is pale, with an outline.
    """
    values = [
        {
            "day": day["day"].isoformat(),
            "series": place,
            "value": int(day[each.column]),
            "final": bool(day["is_mature"]),
        }
        for day in days
        for place, each in enumerate(series)
        if day[each.column]
    ]
    highest = max(sum(int(day[each.column]) for each in series) for day in days)
    encoding = {
        "x": _day_axis(days),
        "y": {
            "field": "value",
            "type": "quantitative",
            "aggregate": "sum",
            # Of few uploads one line each: tickMinStep does not keep 0.5 away.
            "axis": {"title": None, "tickCount": min(highest, 5), "format": "~s"},
        },
        "fill": _colours(series),
        "stroke": _unless_final({"value": "var(--surface)"}, _colours(series)),
        "fillOpacity": _unless_final({"value": 1}, {"value": PALE}),
        "detail": {"field": "final"},
        "order": {"field": "series", "type": "quantitative"},
    }
    mark = {"type": "bar", "strokeWidth": 0.75}
    return _chart(
        draw, caption, {"data": {"values": values}, "mark": mark, "encoding": encoding}, 250
    )


def duration_lines(
    draw: Draw, caption: Caption, days: Sequence[Mapping[str, Any]], series: Sequence[Series]
) -> Chart:
    """A line for each of ``series``, in seconds on an axis of powers; a day without one is a gap.

    Less than a second is drawn as one: zero has no place on such an axis.  The points of days that
    are not ``is_mature`` are hollow.
    """
    values = [
        {
            "day": day["day"].isoformat(),
            "series": place,
            "final": bool(day["is_mature"]),
            "value": None if day[each.column] is None else max(float(day[each.column]), 1.0),
        }
        for day in days
        for place, each in enumerate(series)
    ]
    known = [value["value"] for value in values if value["value"] is not None]
    below = [tick for tick in DURATION_TICKS if tick <= min(known)]
    above = [tick for tick in DURATION_TICKS if tick >= max(known)]
    low = below[-1] if below else 1
    high = above[0] if above else max(known)
    if low == high:
        high = low * 10
    ticks = [tick for tick in DURATION_TICKS if low <= tick <= high]
    names = dict(zip(map(str, DURATION_TICKS), DURATION_LABELS, strict=True))
    label = " : ".join(f"datum.value == {tick} ? '{names[str(tick)]}'" for tick in ticks)
    shared = {
        "x": _day_axis(days),
        "y": {
            "field": "value",
            "type": "quantitative",
            "scale": {"type": "log", "domain": [low, high], "nice": False},
            "axis": {"title": None, "values": ticks, "labelExpr": f"{label} : ''"},
        },
        "color": _colours(series),
    }
    layers = _lines_and_points(shared, series)
    return _chart(draw, caption, {"data": {"values": values}, "layer": layers}, 220)


def week_line(
    draw: Draw, caption: Caption, weeks: Sequence[Mapping[str, Any]], series: Series
) -> Chart:
    """One line of per cent over weeks, each at its ``day``; a week without a value is a gap.

    The point of one that is not ``is_final`` is hollow.
    """
    values = [
        {
            "day": week["day"].isoformat(),
            "series": 0,
            "final": bool(week["is_final"]),
            "value": None if week[series.column] is None else float(week[series.column]),
        }
        for week in weeks
    ]
    known = [value["value"] for value in values if value["value"] is not None]
    # Shares near 100 are compared with each other, so the axis need not begin at nothing.
    low = max(0, min(10 * (int(min(known)) // 10), 90))
    shared = {
        "x": _day_axis(weeks),
        "y": {
            "field": "value",
            "type": "quantitative",
            "scale": {"domain": [low, 100], "nice": False},
            "axis": {"title": None, "tickCount": 5, "labelExpr": "datum.label + ' %'"},
        },
        "color": _colours([series]),
    }
    layers = _lines_and_points(shared, [series])
    return _chart(draw, caption, {"data": {"values": values}, "layer": layers}, 170)


def _lines_and_points(shared: Spec, series: Sequence[Series]) -> list[Spec]:
    dashes = [[4, 3] if each.dashed else [1, 0] for each in series]
    return [
        {
            "mark": {"type": "line", "strokeWidth": 2, "invalid": "break-paths-show-domains"},
            "encoding": shared
            | {
                "strokeDash": {
                    "field": "series",
                    "type": "ordinal",
                    "scale": {"domain": list(range(len(series))), "range": dashes},
                    "legend": None,
                }
            },
        },
        {
            "mark": {"type": "point", "size": 30, "strokeWidth": 1.5, "opacity": 1},
            "encoding": {name: shared[name] for name in ("x", "y")}
            | {
                "stroke": _colours(series),
                "fill": _unless_final(_colours(series), {"value": "var(--surface)"}),
            },
        },
    ]


def _unless_final(final: Spec, pale: Spec) -> Spec:
    """An encoding by whether the day of the mark is final; one of the two may be of a field."""
    if "value" in final:
        return {"condition": {"test": "datum.final", **final}, **pale}
    return {"condition": {"test": "!datum.final", **pale}, **final}


def stacked_shares(
    draw: Draw,
    caption: Caption,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    series: Sequence[Series],
) -> Chart:
    """One horizontal bar per row of ``rows`` with the shares of ``series`` in its ``started``."""
    values = [
        {
            "name": row[name],
            "series": place,
            "value": float(100 * int(row[each.column]) / int(row["started"])),
        }
        for row in rows
        if row["started"]
        for place, each in enumerate(series)
    ]
    encoding = {
        "y": {
            "field": "name",
            "type": "nominal",
            "sort": [row[name] for row in rows],
            "axis": {"title": None, "grid": False, "minExtent": 96},
            "scale": {"paddingInner": 0.35, "paddingOuter": 0.2},
        },
        "x": {
            "field": "value",
            "type": "quantitative",
            "aggregate": "sum",
            "axis": {"title": None, "tickCount": 5, "labelExpr": "datum.label + ' %'"},
            "scale": {"domainMin": 0},
        },
        "color": _colours(series),
        "order": {"field": "series", "type": "quantitative"},
    }
    mark = {"type": "bar", "stroke": "var(--surface)", "strokeWidth": 1}
    spec = {"data": {"values": values}, "mark": mark, "encoding": encoding}
    return _chart(draw, caption, spec, 40 + 30 * len({value["name"] for value in values}))


def _day_axis(days: Sequence[Mapping[str, Any]]) -> Spec:
    """One position per day.  The last day has a label, and every nth before it."""
    names = [day["day"].isoformat() for day in days]
    step = -(-len(names) // DAY_LABELS)
    return {
        "field": "day",
        "type": "ordinal",
        "scale": {"domain": names, "paddingInner": 0.12 if len(names) <= 62 else 0},
        "axis": {
            "title": None,
            "values": names[::-step],
            "labelExpr": "utcFormat(toDate(datum.value), '%-d %b')",
            "labelAngle": 0,
            "labelOverlap": "parity",
            "labelSeparation": 8,
        },
    }


def _colours(series: Sequence[Series]) -> Spec:
    return {
        "field": "series",
        "type": "ordinal",
        "scale": {
            "domain": list(range(len(series))),
            "range": [f"var({each.colour})" for each in series],
        },
        "legend": None,  # the page has its own, which is text
    }


def _chart(draw: Draw, caption: Caption, spec: Spec, height: int) -> Chart:
    return Chart(
        wide=_svg(draw, caption, spec, WIDE, height),
        narrow=_svg(draw, caption, spec, NARROW, height),
    )


def _svg(draw: Draw, caption: Caption, spec: Spec, width: int, height: int) -> str:
    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",  # a name, not fetched
        "width": width,
        "height": height,
        "background": None,
        "padding": 2,
        "autosize": {"type": "fit", "contains": "padding"},
        "config": {
            # The page describes the whole chart, and gives its numbers as a table.
            "aria": False,
            "font": "sans-serif",
            "view": {"stroke": None},
            "axis": {
                "domain": False,
                "ticks": False,
                "gridColor": "var(--line)",
                "labelColor": "var(--muted)",
                "labelFontSize": FONT_SIZE,
                "labelPadding": 6,
            },
        },
        **spec,
    }
    body = _OPENING.sub("", draw(whole), count=1)
    body = _NOT_NEEDED.sub("", body)
    body = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), body)
    title, description = (f"{caption.name}-{width}-{part}" for part in ("title", "description"))
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{title}" aria-describedby="{description}" focusable="false">'
        f'<title id="{title}">{escape(caption.title)}</title>'
        f'<desc id="{description}">{escape(caption.description)}</desc>{body}'
    )
