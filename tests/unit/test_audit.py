"""The audit refuses what may not be published, for the reason that holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from etl.coverage import EVERYTHING, NEGATIVE_INFINITY, POSITIVE_INFINITY, Coverage, Span
from etl.errors import DataRefused
from etl.run.audit import (
    audit_changes,
    audit_coverage,
    audit_fields,
    audit_unreadable,
    overrides_of,
)
from etl.run.plan import SyncOptions
from etl.walk import Hole
from etl.warehouse.load.resolve import AuditCounts
from etl.warehouse.load.vanished import Vanished

COUNTS = AuditCounts(
    inserted=0,
    changed=0,
    absent=0,
    relisted=0,
    pending=0,
    rejected=0,
    stateless=0,
    partly_loaded=0,
    rejected_known=0,
    not_covered=0,
    unchanged=1_000,
    listed_before=1_000,
    staged_now=0,
    staged_expected=0,
)
HOLES = [Hole(Span(100, 105), "unreadable", 3, None)]
BUSY = [Hole(Span(200, 202), "tie_group", 2, None)]
COMPLETE = Coverage([EVERYTHING])
WITH_HOLE = Coverage([Span(NEGATIVE_INFINITY, 100), Span(105, POSITIVE_INFINITY)])


def refused(
    counts: AuditCounts = COUNTS,
    *,
    coverage: Coverage = COMPLETE,
    holes: Sequence[Hole] = (),
    max_unreadable: int = 10,
    accept_absences: int | None = None,
    accept_rejected: int | None = None,
) -> str | None:
    """The reason; None if the walk may be published."""
    try:
        audit_coverage(
            target=EVERYTHING, coverage=coverage, holes=holes, max_unreadable=max_unreadable
        )
        audit_changes(counts, accept_absences=accept_absences, accept_rejected=accept_rejected)
    except DataRefused as error:
        return f"exit {error.exit_code}" if error.exit_code != 65 else str(error.fields["reason"])
    return None


def test_a_complete_quiet_walk_passes() -> None:
    assert refused() is None


def test_an_uncovered_second_is_refused() -> None:
    assert refused(coverage=WITH_HOLE) == "incomplete"


def test_a_hole_around_unreadable_rows_passes_up_to_the_limit() -> None:
    hole = Hole(Span(100, 105), "unreadable", 10)

    assert refused(coverage=WITH_HOLE, holes=[hole]) is None
    assert refused(coverage=WITH_HOLE, holes=[hole._replace(tokens=11)]) == "unreadable"
    assert refused(coverage=WITH_HOLE, holes=[hole], max_unreadable=9) == "unreadable"


def test_a_hole_smaller_than_what_is_missing_does_not_excuse_it() -> None:
    assert (
        refused(coverage=WITH_HOLE, holes=[Hole(Span(100, 104), "unreadable", 1)]) == "incomplete"
    )


def test_a_second_that_would_not_keep_still_counts_like_an_unreadable_row() -> None:
    hole = Hole(Span(100, 105), "tie_group", 10)
    assert refused(coverage=WITH_HOLE, holes=[hole]) is None
    assert refused(coverage=WITH_HOLE, holes=[hole], max_unreadable=9) == "unreadable"


def test_a_hole_of_another_kind_is_no_excuse() -> None:
    assert refused(coverage=WITH_HOLE, holes=[Hole(Span(100, 105), "unstable", 1)]) == "incomplete"


@pytest.mark.parametrize(("absent", "outcome"), [(200, None), (201, "absence_brake")])
def test_the_brake_holds_at_a_fifth_of_the_tokens(absent: int, outcome: str | None) -> None:
    assert refused(replace(COUNTS, absent=absent)) == outcome


@pytest.mark.parametrize(("absent", "outcome"), [(10, None), (11, "absence_brake")])
def test_ten_absences_are_always_allowed(absent: int, outcome: str | None) -> None:
    assert refused(replace(COUNTS, absent=absent, listed_before=12, unchanged=1)) == outcome


@pytest.mark.parametrize(("accepted", "outcome"), [(500, None), (499, "absence_brake")])
def test_accepted_absences_override_the_brake(accepted: int, outcome: str | None) -> None:
    assert refused(replace(COUNTS, absent=500), accept_absences=accepted) == outcome


def test_accepting_few_absences_does_not_tighten_the_brake() -> None:
    assert refused(replace(COUNTS, absent=150), accept_absences=0) is None


@pytest.mark.parametrize(
    ("rejected", "unchanged", "outcome"),
    [(10, 0, None), (11, 0, "rejected"), (100, 99_900, None), (101, 99_899, "rejected")],
)
def test_rejected_rows_are_limited_to_ten_or_a_thousandth(
    rejected: int, unchanged: int, outcome: str | None
) -> None:
    assert refused(replace(COUNTS, rejected=rejected, unchanged=unchanged)) == outcome


@pytest.mark.parametrize(("accepted", "outcome"), [(500, None), (499, "rejected"), (0, "rejected")])
def test_accepted_rejected_rows_override_their_limit(accepted: int, outcome: str | None) -> None:
    assert refused(replace(COUNTS, rejected=500), accept_rejected=accepted) == outcome


def test_rows_that_lack_a_status_or_were_loaded_in_part_are_not_limited() -> None:
    counts = replace(COUNTS, rejected=510, stateless=500, partly_loaded=500)
    assert refused(counts) is None
    assert refused(replace(counts, rejected=511)) == "rejected"


@pytest.mark.parametrize(
    ("lacking", "of", "is_most"), [(100, 199, True), (100, 200, False), (99, 99, False)]
)
def test_a_field_has_vanished_from_more_than_half_and_at_least_a_hundred(
    lacking: int, of: int, is_most: bool
) -> None:
    found = Vanished("fileName", lacking, of)
    assert found.if_most() == (found if is_most else None)


def test_each_field_that_vanished_must_be_accepted() -> None:
    vanished = [Vanished("fileName", 500, 900), Vanished("fileSize", 800, 900)]
    audit_fields([], accepted=())
    audit_fields(vanished, accepted=("fileName", "fileSize"))
    with pytest.raises(DataRefused) as caught:
        audit_fields(vanished, accepted=("fileName",))
    assert caught.value.fields["reason"] == "field_vanished"
    assert "fileName" not in caught.value.message
    assert "--accept-vanished-field fileSize." in caught.value.message


def test_the_ledger_records_the_overrides_that_were_given() -> None:
    assert overrides_of(SyncOptions()) == {}
    assert overrides_of(SyncOptions(accept_absences=0, accept_rejected=3)) == {
        "accept_absences": 0,
        "accept_rejected": 3,
    }


@pytest.mark.parametrize(
    ("holes", "ids", "words"),
    [
        (HOLES, 0, "3 tokens cannot be read, more than the 0 allowed"),
        (BUSY, 0, "2 seconds kept changing, more than the 0 allowed"),
        (HOLES + BUSY, 1, "4 tokens cannot be read and 2 seconds kept changing, more than"),
        ([BUSY[0]._replace(tokens=1)], 1, "1 token cannot be read and 1 second kept changing"),
    ],
)
def test_a_second_that_kept_changing_is_not_called_a_token(
    holes: list[Hole], ids: int, words: str
) -> None:
    with pytest.raises(DataRefused, match=f"^{words}") as caught:
        audit_unreadable(holes, 0, [f"0_{number}" for number in range(ids)])

    counted = sum(hole.tokens for hole in holes) + ids
    assert f"--max-unreadable {counted}." in caught.value.message
