"""What is read of the head of a file of ``sql/views``, without a database."""

from __future__ import annotations

import re

import pytest

from etl.warehouse.schema.views import ViewFile, view_files


def test_a_line_that_looks_like_one_of_a_column_is_a_sentence_before_others() -> None:
    statement = (
        "-- rule: what a day is.\n"
        "--\n"
        "-- note: a day may have\n"
        "-- 25 hours.\n"
        "-- day: The day.\n"
        "--   In words: one.\n"
        "-- hours: How many it has.\n"
        "create or replace view days as select day, hours from calendar"
    )
    view = ViewFile.of("days", statement, {})
    assert view.comment == "rule: what a day is.\nnote: a day may have 25 hours."
    assert view.columns == {"day": "The day. In words: one.", "hours": "How many it has."}


def test_the_first_line_and_a_function_have_no_columns() -> None:
    alone = ViewFile.of("x", "-- only: one line.\ncreate or replace view x as select 1 as only", {})
    assert (alone.comment, alone.columns) == ("only: one line.", {})
    head = "-- What it gives.\n--\n-- zone: by its name.\n"
    function = ViewFile.of("f", f"{head}create or replace function f(zone text) …", {})
    assert (function.comment, function.columns) == ("What it gives.\nzone: by its name.", {})


@pytest.mark.parametrize("view", view_files(), ids=lambda view: str(view.name))
def test_a_file_describes_columns_of_its_view_alone(view: ViewFile) -> None:
    """Postgres would refuse the comment, and with it the migration."""
    code = "\n".join(line.partition("--")[0] for line in view.statement.splitlines())
    described = view.statement.partition("create or replace")[0]
    unknown = [
        name
        for name in view.columns
        if f"-- {name}: " in described and re.search(rf"\b{name}\b", code) is None
    ]
    assert unknown == [], f"sql/views/{view.name}.sql: write the sentence in another form"
