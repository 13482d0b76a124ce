"""What is in the files: every row of every view, as it is in the warehouse."""

from __future__ import annotations

import csv
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from etl.warehouse.access.grants import grant
from etl.warehouse.read.extract import Selection, exportable, exported_unasked
from tests.export.exporting import exported, files_of, manifest_of, rows_of
from tests.support.export_sample import NAMES, Sample
from tests.support.roles import roles_of

GROWING = {"age_seconds", "complete_age_seconds"}
"""They are reckoned to now."""

# By type of Postgres: what the text of a cell says, and what the view has.
READ_BACK = {
    "numeric": ("cast({cell} as numeric)", "round({value}, 9)"),
    "interval": ("cast({cell} as double precision)", "extract(epoch from {value})::float8"),
    "_text": (
        "case when {cell} is not null then "
        "array(select json_array_elements_text(cast({cell} as json))) end",
        "{value}",
    ),
    **dict.fromkeys(
        ("_int4", "_int8"),
        (
            "array(select cast(json_array_elements_text(cast({cell} as json)) as bigint))",
            "cast({value} as bigint[])",
        ),
    ),
    "_float8": (
        "case when {cell} is not null then "
        "array(select cast(json_array_elements_text(cast({cell} as json)) as float8)) end",
        "{value}",
    ),
    "bytea": ("decode({cell}, 'hex')", "{value}"),
    "text": (
        r"regexp_replace({cell}, '^''(?=''*[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])"
        r"|(?<=[;\t\r\n])''(?=[''\x22]*[=+\-@\uFF1D\uFF0B\uFF0D\uFF20])', '', 'g')",
        "{value}",
    ),
}


@pytest.fixture(scope="module")
def folder(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that can be exported."""
    folder = tmp_path_factory.mktemp("export") / "all"
    exported(sample.job.database_url, folder, *exportable())
    return folder


def test_every_row_comes_back_as_it_is(sample: Sample, folder: Path) -> None:
    with psycopg.connect(sample.job.database_url) as connection:
        connection.execute("set search_path = kaltura; set timezone = 'UTC'")
        for told in manifest_of(folder)["views"]:
            rows, differing = _compared(connection, folder, told)
            assert (told["view"], rows, differing) == (told["view"], told["rows"], 0)
            may_be_empty = ("pruning", "unobserved_token", "upload_token_horizon")
            assert told["rows"] or told["view"] in may_be_empty
        assert {told["view"] for told in manifest_of(folder)["views"]} == set(exportable())


def _compared(
    connection: psycopg.Connection[Any], folder: Path, told: dict[str, Any]
) -> tuple[int, int]:
    """Rows of the files, and those that only the files or only the view has."""
    view = told["view"]
    columns = [column for column in told["columns"] if column["name"] not in GROWING]
    names = [sql.Identifier(column["name"]) for column in told["columns"]]
    connection.execute("drop table if exists pg_temp.cells")
    connection.execute(
        sql.SQL("create temporary table cells ({})").format(
            sql.SQL(", ").join(sql.SQL("{} text").format(name) for name in names)
        )
    )
    for path in files_of(folder, view):
        with connection.cursor().copy(
            "copy pg_temp.cells from stdin (format csv, header match)"
        ) as copy:
            copy.write(path.read_bytes())
    cells, values = [], []
    for column in columns:
        plain = (f"cast({{cell}} as {column['type']})", "{value}")
        cell, value = READ_BACK.get(column["type"], plain)
        source = column["name"]
        if column["type"] == "interval":
            source = source.removesuffix("_seconds")
        cells.append(sql.SQL(cell).format(cell=sql.Identifier(column["name"])))
        values.append(sql.SQL(value).format(value=sql.Identifier(source)))
    row = connection.execute(
        sql.SQL(
            "with theirs as (select {} from pg_temp.cells), ours as (select {} from {}) "
            "select (select count(*) from theirs), "
            "(select count(*) from (table theirs except all table ours) as more) "
            "+ (select count(*) from (table ours except all table theirs) as less)"
        ).format(
            sql.SQL(", ").join(cells), sql.SQL(", ").join(values), sql.Identifier("kaltura", view)
        )
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def test_no_cell_is_a_formula_and_numbers_are_as_they_are(folder: Path) -> None:
    for told in manifest_of(folder)["views"]:
        kinds = {column["name"]: column["kind"] for column in told["columns"]}
        for row in rows_of(folder, told["view"]):
            for name, cell in row.items():
                if kinds[name] == "text":
                    assert not cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")), (
                        name,
                        cell,
                    )
                else:
                    assert not cell.startswith("'"), (name, cell)
    cells = {row["file_name"] for row in rows_of(folder, "upload_token")}
    assert {"'-5", "''=1+1", "'''@x", "'twas", '\'=HYPERLINK("http://evil.invalid/","open")'} <= (
        cells
    )
    assert NAMES["line"] in cells


def test_no_cell_is_a_formula_where_lists_have_semicolons(folder: Path) -> None:
    """As a spreadsheet reads the file then: quotes within what it takes for a cell are only text
    to it, so it cuts names at their semicolons and lines."""
    cut = 0
    for path in folder.rglob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file, delimiter=";"):
                cut += len(row) > 1
                for cell in row:
                    assert not cell.startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20")), row
    assert cut > 20


def test_null_is_told_from_empty_and_times_have_a_zone(folder: Path) -> None:
    (path,) = [each for each in files_of(folder, "upload_token") if "=102" in str(each)]
    lines = {
        line.split(",")[1]: line for line in path.read_text().splitlines() if "0_sample" in line
    }
    empty = f"0_sample_{list(NAMES).index('empty'):04}"

    assert re.search(rf',{empty},"",\d,"",,', lines[empty])
    assert ",0_sample_0901,,0,,,," in lines["0_sample_0901"]
    for row in rows_of(folder, "upload_token"):
        assert len(row["valid_from"]) == len("2026-11-26T02:30:12.123456+00:00")
        assert row["valid_from"][10] == "T"
        assert row["valid_from"].endswith("+00:00")


def test_without_names_the_views_are_written(sample: Sample, tmp_path: Path) -> None:
    done = exported(sample.job.database_url, tmp_path / "x", partner_id=sample.other_partner)

    views = [told["view"] for told in done.views]
    assert views == exported_unasked()
    assert {"upload_token_history", "upload_outcome", "sync_freshness"} <= set(views)
    assert not {"upload_token_status_moment", "upload_token_snapshot_dbt", "sync_run"} & set(views)
    assert "upload_token_status_count" not in views
    assert {path.parent.name for path in (tmp_path / "x").rglob("*.csv")} == {"partner_id=103"}


def test_only_what_was_published_after_a_run(sample: Sample, tmp_path: Path) -> None:
    first, last = (run["run_id"] for run in sample.job.runs())
    partner_id = sample.job.partner_id
    after = Selection(since_run=first)
    done = exported(sample.job.database_url, tmp_path / "x", selection=after, partner_id=partner_id)

    history = rows_of(tmp_path / "x", "upload_token_history")
    published = {row["token_id"] for row in history if row["run_id"] == str(last)}
    ended = {row["token_id"] for row in history if row["superseded_by_run_id"] == str(last)}
    assert (len(history), published) == (2 * len(published), ended)
    (count,) = sample.job.query(
        "select count(*) as n from kaltura.upload_token_status_history where run_id > %s", first
    )
    assert len(rows_of(tmp_path / "x", "upload_token_status_history")) == count["n"] > 0
    assert [told["view"] for told in done.views] == [
        view
        for view in exported_unasked()
        if view in ("upload_token_history", "upload_token_status_history")
        or any(column["name"] == "run_id" for column in _columns(sample, view))
    ]
    nothing = Selection(since_run=last)
    exported(sample.job.database_url, tmp_path / "y", selection=nothing, partner_id=partner_id)
    assert rows_of(tmp_path / "y", "upload_token_history") == []
    assert files_of(tmp_path / "y", "upload_token_history")[0].read_text().startswith("partner_id,")


def _columns(sample: Sample, view: str) -> list[dict[str, Any]]:
    return sample.job.query(
        "select column_name as name from information_schema.columns "
        "where table_schema = 'kaltura' and table_name = %s",
        view,
    )


def test_only_days_of_a_zone(sample: Sample, tmp_path: Path) -> None:
    zone = "Asia/Tokyo"
    (row,) = sample.job.query(
        "select max((created_at at time zone %s)::date) as day from kaltura.upload_outcome", zone
    )
    day: date = row["day"]
    days = Selection(first_day=day - timedelta(days=4), last_day=day - timedelta(days=2))
    views = ("upload_outcome", "upload_outcome_daily", "stuck_upload")
    exported(sample.job.database_url, tmp_path / "x", *views, selection=days, time_zone=zone)

    (counts,) = sample.job.query(
        "select count(*) as n from kaltura.upload_outcome "
        "where (created_at at time zone %s)::date between %s and %s",
        *(zone, days.first_day, days.last_day),
    )
    outcomes = rows_of(tmp_path / "x", "upload_outcome")
    daily = rows_of(tmp_path / "x", "upload_outcome_daily")
    assert len(outcomes) == counts["n"] == sum(int(row["started"]) for row in daily) > 0
    assert {row["time_zone"] for row in daily} == {zone}
    cut_by = {told["view"]: told["cut_by"] for told in manifest_of(tmp_path / "x")["views"]}
    assert cut_by == {
        "upload_outcome": "created_at",
        "upload_outcome_daily": "day",
        "stuck_upload": "created_at",
    }


def test_a_limited_analyst_exports_its_own_account(sample: Sample, tmp_path: Path) -> None:
    with roles_of(sample.job.database_url) as roles:
        roles.names["analyst"] = roles.create(prefix="limited")
        grant(roles.owner_url, "kaltura", roles.names, accounts=[103], apply=True)
        try:
            done = exported(roles.url("analyst"), tmp_path / "x", *exportable())
        finally:
            grant(roles.owner_url, "kaltura", roles.names, accounts=[], apply=True)

    assert [account["partner_id"] for account in done.accounts] == [103]
    assert {row["partner_id"] for row in rows_of(tmp_path / "x", "upload_token")} == {"103"}
