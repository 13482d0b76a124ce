"""``examples/prometheus``: the rules are well-formed, and about metrics that are really written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from etl.process.metrics import ATTEMPT, PREFIX, RUN, WAREHOUSE

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "examples" / "prometheus" / "kaltura-etl.rules.yml"
PAGE = ROOT / "docs" / "howto" / "monitor.md"
METRICS = {PREFIX + name for name in (*ATTEMPT, *RUN, *WAREHOUSE)}
LABELS = {"partner_id", "account", "mode", "stage", "change", "status"}
RULES: list[dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))["groups"][0]["rules"]


def parts(expression: Any) -> Iterator[Any]:
    """The expression and all that it is made of."""
    yield expression
    for name in ("lhs", "rhs", "expr", "vector_selector", "args"):
        inner = getattr(expression, name, None)
        for each in inner if isinstance(inner, list) else [inner]:
            if each is not None and not isinstance(each, str):
                yield from parts(each)


def test_the_file_has_what_prometheus_reads() -> None:
    text = FILE.read_text("utf-8")
    assert yaml.safe_load(text).keys() == {"groups"}
    (group,) = yaml.safe_load(text)["groups"]
    assert group.keys() == {"name", "rules"}
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert re.findall(r"^\| `(KalturaEtl\w+)` \|", PAGE.read_text("utf-8"), re.M) == names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_a_rule_is_about_metrics_that_are_written(rule: dict[str, Any]) -> None:
    assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert rule["labels"].keys() == {"severity"}
    assert rule["annotations"].keys() == {"summary", "description"}
    if "for" in rule:
        assert promql.parse_duration(rule["for"]).total_seconds() > 0

    found = list(parts(promql.parse(rule["expr"])))
    selected = [each for each in found if isinstance(each, promql.VectorSelector)]
    assert {each.name for each in selected} <= METRICS | {"node_textfile_scrape_error"}
    assert selected
    kept = LABELS
    for each in found:
        if isinstance(each, promql.AggregateExpr) and each.modifier is not None:
            kept = kept & set(each.modifier.labels)
    for each in selected:
        assert {matcher.name for matcher in each.matchers.matchers} <= LABELS
    told = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", told)) <= kept
    assert told.count("{{") == told.count("}}")


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_is_documented(metric: str) -> None:
    table = "\n".join(re.findall(r"^\| `.*\|$", PAGE.read_text("utf-8"), re.M))
    assert f"`{metric.removeprefix(PREFIX)}" in table
