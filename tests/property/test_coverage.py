"""Laws of coverage: it is a set of seconds, and its SQL form is the same set."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.coverage import (
    EVERYTHING,
    NEGATIVE_INFINITY,
    POSITIVE_INFINITY,
    Coverage,
    Span,
    page_span,
)

seconds = st.integers(-30, 30)
spans = st.builds(
    Span,
    st.one_of(seconds, st.just(NEGATIVE_INFINITY)),
    st.one_of(seconds, st.just(POSITIVE_INFINITY)),
)
many_spans = st.lists(spans, max_size=8)
LINE = range(-40, 40)


def members(spans: list[Span]) -> set[int]:
    return {second for second in LINE if any(span.lower <= second < span.upper for span in spans)}


@given(many_spans)
def test_a_coverage_holds_the_seconds_of_its_spans(spans: list[Span]) -> None:
    coverage = Coverage(spans)
    assert {second for second in LINE if coverage.contains(second)} == members(spans)
    kept = list(coverage)
    assert all(one.upper < other.lower for one, other in pairwise(kept))


@given(many_spans)
def test_adding_one_by_one_in_any_order_is_the_union(spans: list[Span]) -> None:
    coverage = Coverage()
    for span in reversed(spans):
        coverage = coverage.add(span)
    assert coverage == Coverage(spans) == Coverage().union(spans)


@given(many_spans, spans)
def test_holes_are_what_is_missing(spans: list[Span], target: Span) -> None:
    coverage = Coverage(spans)
    holes = coverage.holes(target)
    assert members(holes) == members([target]) - members(spans)
    assert coverage.first_hole(target) == (holes[0] if holes else None)
    if target.lower < target.upper:
        assert coverage.contains_span(target) == (not holes)
        assert coverage.union(holes).contains_span(target)


@given(many_spans)
def test_sql_form_round_trips(spans: list[Span]) -> None:
    coverage = Coverage(spans)
    assert Coverage.from_sql(coverage.to_sql()) == coverage


@pytest.mark.parametrize("text", ["{", "[1,2", "{1,2}", "{[a,b)}", "{[1,2);}", "[1;2)"])
def test_other_text_is_no_coverage(text: str) -> None:
    if text == "{":
        assert Coverage.from_sql("{}") == Coverage()
        return
    with pytest.raises(ValueError, match="not an int8multirange"):
        Coverage.from_sql(text)


@given(st.lists(st.integers(0, 20), max_size=12), st.data())
def test_a_page_holds_every_row_of_its_span(rows: list[int], data: st.DataObject) -> None:
    rows.sort()
    begin = data.draw(st.integers(0, len(rows)))
    end = data.draw(st.integers(begin, len(rows)))
    span = page_span(rows[begin:end], from_start=begin == 0, to_end=end == len(rows))
    if span is not None:
        outside = rows[:begin] + rows[end:]
        assert not any(span.lower <= row < span.upper for row in outside)


def test_the_whole_list_on_one_page_proves_everything() -> None:
    assert page_span([], from_start=True, to_end=True) == EVERYTHING
    assert page_span([5, 5], from_start=True, to_end=True) == EVERYTHING


def test_a_page_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="not in ascending"):
        page_span([1, 3, 2])
