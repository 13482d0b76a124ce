"""Every query of the dashboards has an answer, in a warehouse of two accounts and six weeks."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.examples.dashboards import (
    GRAFANA,
    MetabaseQuestion,
    as_grafana_sends,
    dashboard,
    exposed,
    metabase_questions,
    variables,
)

SOURCE = {"type": "grafana-postgresql-datasource", "uid": "${DS_KALTURA}"}
PANELS = dashboard()["panels"]
QUESTIONS = list(metabase_questions())
RANGE = ("2026-02-17T08:00:00Z", "2026-03-31T08:00:00.123Z")
"""Six weeks, as in the dashboard, until the known accounts' now."""


@pytest.fixture(scope="module")
def warehouse(known_url: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """Without a search_path, as tools connect."""
    with psycopg.connect(known_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def asked(warehouse: psycopg.Connection[dict[str, Any]], query: str) -> list[dict[str, Any]]:
    return warehouse.execute(query.encode()).fetchall()


def grafana_query(query: str) -> str:
    return as_grafana_sends(query, {"schema": "kaltura", "partner_id": "102"}, *RANGE)


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_of_grafana_has_data(
    warehouse: psycopg.Connection[dict[str, Any]], panel: dict[str, Any]
) -> None:
    (target,) = panel["targets"]
    rows = asked(warehouse, grafana_query(target["rawSql"]))

    assert rows
    columns = set(rows[0])
    for override in panel["fieldConfig"]["overrides"]:
        named = override["matcher"]["options"]
        assert any(re.fullmatch(named, column) for column in columns), named
    assert (panel["type"] == "timeseries") == (target["format"] == "time_series")
    if panel["type"] == "stat":
        assert len(rows) == 1
    if panel["type"] == "timeseries":
        times = [row["time"] for row in rows]
        assert times == sorted(times)
        assert all(isinstance(time, datetime) for time in times)
        assert len(set(times)) > 10
        for row in rows:
            for name, value in row.items():
                if name not in ("time", "metric"):
                    assert value is None or float(value) >= 0


def test_the_variables_of_grafana_are_the_accounts_and_the_schema(
    warehouse: psycopg.Connection[dict[str, Any]],
) -> None:
    schema, account = dashboard()["templating"]["list"]

    assert (schema["name"], schema["query"]) == ("schema", "${VAR_SCHEMA}")
    found = asked(warehouse, grafana_query(account["query"]))
    assert found == [{"partner_id": 102}, {"partner_id": 103}]
    # A query asks for one account, and for no schema of its own.
    for panel in PANELS:
        query = panel["targets"][0]["rawSql"]
        assert query.count("partner_id = $partner_id") == 1, panel["title"]
        assert query.count("${schema}.") == query.count("from ${schema}.") == 1, panel["title"]


def test_the_dashboard_of_grafana_asks_for_its_data_source_when_it_is_imported() -> None:
    found = dashboard()

    inputs = {each["name"]: each for each in found["__inputs"]}
    assert inputs["DS_KALTURA"]["pluginId"] == SOURCE["type"]
    assert inputs["VAR_SCHEMA"]["value"] == "kaltura"
    assert json.dumps(found).count('"datasource": {') == json.dumps(found).count(json.dumps(SOURCE))
    assert {each["id"] for each in found["__requires"] if each["type"] == "panel"} == {
        panel["type"] for panel in PANELS
    }
    assert found["id"] is None  # Grafana gives it one
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert GRAFANA.read_text(encoding="utf-8") == f"{json.dumps(found, indent=2)}\n"


def test_panels_of_grafana_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in PANELS]

    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )


@pytest.mark.parametrize("question", QUESTIONS, ids=[question.name for question in QUESTIONS])
def test_a_question_of_metabase_has_an_answer(
    warehouse: psycopg.Connection[dict[str, Any]], question: MetabaseQuestion
) -> None:
    assert [question[line].partition(": ")[0] for line in (1, 2)] == ["-- Display", "-- Variables"]
    assert question.needs.keys() == variables(question.text)
    assert question.required == {"partner_id"}
    assert {"partner_id": "number", "since": "date"}.items() >= question.needs.items()
    every = asked(warehouse, question.as_metabase_sends(partner_id="102"))
    since = asked(
        warehouse, question.as_metabase_sends(partner_id="102", since="date '2026-03-10'")
    )

    assert question.shown <= every[0].keys()
    assert question.shown
    if "since" in question.needs:
        assert 0 < len(since) <= len(every)
        assert since != every
    else:
        assert since


def test_the_exposures_of_the_dbt_package_name_what_the_dashboards_read() -> None:
    assert exposed() == {
        "kaltura_grafana_dashboard": set(
            re.findall(r"\$\{schema\}\.(\w+)", GRAFANA.read_text(encoding="utf-8"))
        ),
        "kaltura_metabase_questions": {
            name
            for question in QUESTIONS
            for name in re.findall(r"\bkaltura\.(\w+)", question.text)
        },
    }
