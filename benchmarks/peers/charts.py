"""The README's charts: one bar for each case and tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.compare import CASES
from benchmarks.tools import OURS
from etl.report.charts import find_drawer

WIDTH = 620
OURS_COLOUR, PEERS_COLOUR, TEXT_COLOUR = "#1f6feb", "#b4bcc6", "#24292f"


def draw_multiples(
    file: Path, title: str, subtitle: str, tools: Mapping[str, Mapping[str, float]]
) -> None:
    """Write an SVG of the multiples of the limit, by tool and case.

    Raises RuntimeError without vl-convert, which is a development dependency.
    """
    draw = find_drawer()
    if draw is None:
        raise RuntimeError("the charts need vl-convert-python: make the environment again (./dev)")
    values = [
        {"case": case, "tool": tool, "multiple": multiple, "text": f"{multiple:.1f}"}
        for tool, cases in tools.items()
        for case, multiple in cases.items()
    ]
    y: dict[str, Any] = {
        "field": "tool",
        "type": "nominal",
        "sort": list(tools),
        "axis": {"title": None, "domain": False, "ticks": False, "labelPadding": 6},
    }
    x: dict[str, Any] = {"field": "multiple", "type": "quantitative", "axis": None}
    is_ours = {"test": f"datum.tool === '{OURS}'"}
    spec = {
        "background": "white",
        "padding": 12,
        "title": {
            "text": title,
            "subtitle": subtitle,
            "anchor": "start",
            "color": TEXT_COLOUR,
            "subtitleColor": TEXT_COLOUR,
            "offset": 12,
        },
        "data": {"values": values},
        "facet": {
            "row": {
                "field": "case",
                "type": "nominal",
                "sort": list(CASES),
                "header": {
                    "title": None,
                    "labelAngle": 0,
                    "labelAlign": "left",
                    "labelColor": TEXT_COLOUR,
                    "labelFontWeight": "bold",
                },
            }
        },
        "spec": {
            "width": WIDTH - 250,
            "height": {"step": 17},
            "layer": [
                {
                    "mark": {"type": "bar", "height": 12},
                    "encoding": {
                        "y": y,
                        "x": x,
                        "color": {
                            "condition": {**is_ours, "value": OURS_COLOUR},
                            "value": PEERS_COLOUR,
                        },
                    },
                },
                {
                    "mark": {"type": "text", "align": "left", "dx": 4, "color": TEXT_COLOUR},
                    "encoding": {"y": y, "x": x, "text": {"field": "text", "type": "nominal"}},
                },
            ],
        },
        "config": {
            "font": "sans-serif",
            "view": {"stroke": None},
            "axis": {"labelColor": TEXT_COLOUR},
        },
    }
    file.write_text(draw(spec) + "\n", encoding="utf-8")
