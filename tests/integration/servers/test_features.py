"""What a server must have is asked of the server: if one lacks it, check says so early."""

from __future__ import annotations

import psycopg
import pytest

from etl.preflight import _check_server
from etl.warehouse.schema import features
from etl.warehouse.schema.features import FEATURES, Feature, feature_problem, missing_features
from etl.warehouse.schema.revision import open_connection


@pytest.mark.postgres15
def test_postgres_has_every_feature(empty_database_url: str) -> None:
    with open_connection(empty_database_url) as connection:
        assert missing_features(connection) == []
        assert feature_problem(connection) is None


def test_what_is_missing_is_named_by_check(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of no, an error and no answer at all mean the same, and hide no other answer."""
    lacking = [
        Feature("one that is not there", "select false"),
        Feature("one whose function is not there", "select no_such_function(1)"),
        Feature("one whose syntax is not there", "select as of system time '-1s'"),
        Feature("one without an answer", "select null"),
    ]
    monkeypatch.setattr(features, "FEATURES", (*lacking, *FEATURES))
    (writable,) = [
        each
        for each in _check_server("here", empty_database_url)
        if each.part == "database writable"
    ]
    assert (writable.state, writable.exit_code) == ("failed", 78)
    for each in lacking:
        assert each.name in writable.detail
    for feature in FEATURES:
        assert feature.name not in writable.detail
    assert "docs/scale.md" in writable.detail


def test_a_check_beside_another_lacks_nothing(empty_database_url: str) -> None:
    """Each holds the locks that it tries until its transaction ends."""
    with (
        open_connection(empty_database_url) as other,
        open_connection(empty_database_url) as connection,
    ):
        for feature in FEATURES:
            assert other.exec_driver_sql(feature.probe.replace("%", "%%")).scalar() is True
        assert missing_features(connection) == []


HIDDEN = (
    # Catalog, column, the name that is hidden, and the features that are missing then.
    ("pg_proc", "proname", "current_setting", {"security_invoker", "READ COMMITTED"}),
    ("pg_type", "typname", "int8multirange", {"multirange types"}),
    ("pg_proc", "proname", "range_agg", {"multirange types"}),
    ("pg_attribute", "attname", "prosqlbody", {"begin atomic"}),
    ("pg_proc", "proname", "pg_try_advisory_xact_lock", {"advisory locks"}),
    ("pg_proc", "proname", "set_config", {"settings for one transaction"}),
    ("pg_class", "relname", "pg_policy", {"row-level security"}),
    ("pg_collation", "collname", "C", {"collation C"}),
    ("pg_proc", "proname", "percentile_cont", {"lateral subqueries"}),
    ("pg_proc", "proname", "json_to_recordset", {"json_to_recordset"}),
    ("pg_proc", "proname", "sha256", {"the functions sha256"}),
    ("pg_proc", "proname", "width_bucket", {"the functions sha256"}),
    ("pg_proc", "proname", "date_bin", {"the functions sha256"}),
)
ALWAYS_THERE = {"select … for update skip locked"}
"""Syntax, which cannot be hidden."""


def test_each_feature_that_a_server_hides_is_missed_and_no_other(empty_database_url: str) -> None:
    """A catalog that lacks a name is that of a server without the feature."""
    names = {feature.name for feature in FEATURES}
    seen = set(ALWAYS_THERE)
    with psycopg.connect(empty_database_url, autocommit=True) as owner:
        for catalog, column, name, features_of_it in HIDDEN:
            rename = f"update {catalog} set {column} = %s where {column} = %s".encode()  # noqa: S608
            lacking = {each for each in names if any(part in each for part in features_of_it)}
            with open_connection(empty_database_url) as connection:
                owner.execute(rename, ["hidden", name])
                try:
                    missing = missing_features(connection)
                    problem = feature_problem(connection)
                finally:
                    owner.execute(rename, [name, "hidden"])
            assert set(missing) == lacking, name
            assert problem is not None
            assert all(each in problem.message for each in lacking)
            seen |= lacking
    assert seen == names
