"""What a server must have is asked of the server: if one lacks it, check says so early."""

from __future__ import annotations

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
