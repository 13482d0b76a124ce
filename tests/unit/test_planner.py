"""Pages begin where a multiple of their size lies, and still overlap as wanted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etl.walk.planner import (
    PageRequest,
    is_clear,
    page_beginning_soonest,
    page_ending_near,
    page_holding,
    page_reaching_furthest,
)

positions = st.integers(0, 5_000)
barriers = st.sets(positions, max_size=4)


@given(positions, st.integers(1, 500), barriers)
def test_a_page_begins_at_or_before_the_wanted_start(
    wanted: int, largest: int, barriers: set[int]
) -> None:
    page = page_reaching_furthest(wanted, largest, barriers=barriers, beyond=wanted)
    if page is None:
        sizes = [s for s in range(1, largest + 1) if (wanted // s + 1) * s > wanted]
        assert all(
            (wanted // size + 1) * size <= wanted
            or not is_clear(wanted // size * size, wanted // size * size + size, barriers)
            for size in sizes
        )
        return
    assert page.start <= wanted < page.end
    assert page.start % page.size == 0
    assert 1 <= page.size <= largest
    assert is_clear(page.start, page.end, barriers)


@given(st.integers(2_000, 10**7))
def test_a_page_reaches_nearly_as_far_as_the_largest_could(wanted: int) -> None:
    page = page_reaching_furthest(wanted, 500)
    assert page is not None
    assert page.end - wanted >= 200


@given(positions, st.integers(0, 60), st.integers(1, 120), barriers, st.booleans())
def test_a_page_holds_what_it_has_to(
    first: int, more: int, largest: int, barriers: set[int], centred: bool
) -> None:
    total = 6_000
    page = page_holding(
        first, first + more, largest, barriers=barriers, total_count=total, centred=centred
    )
    if page is None:
        return
    start, end = page.start, page.end
    if page.descending:
        start, end = total - page.end, total - page.start
    assert start <= first <= first + more < end
    assert is_clear(start, end, barriers)
    assert page.size <= largest


@given(positions, st.integers(1, 500), barriers)
def test_a_page_behind_a_barrier_is_free_of_barriers(
    not_before: int, largest: int, barriers: set[int]
) -> None:
    page = page_beginning_soonest(not_before, largest, barriers)
    assert page.start >= not_before
    assert is_clear(page.start, page.end, barriers)


@given(positions, st.integers(0, 60), st.integers(1, 120), st.integers(0, 200), st.integers(0, 200))
def test_a_page_ends_as_near_as_the_limits_allow(
    first: int, more: int, largest: int, before: int, behind: int
) -> None:
    total, last = 6_000, first + more
    floor, ceiling, target = first - before, last + 1 + behind, last + 1 + behind // 2
    page = page_ending_near(
        first, last, target, largest, floor=floor, ceiling=ceiling, total_count=total
    )
    if page is None:
        assert more or largest < 1
        return
    start, end = page.ascending(total)
    assert max(floor, 0) <= start <= first <= last < end <= ceiling
    assert page.size <= largest


def test_positions_of_a_page() -> None:
    assert (PageRequest(3, 450).start, PageRequest(3, 450).end) == (900, 1350)
