"""The wanted number of requests is in flight, and no more of them are made than needed."""

from __future__ import annotations

import math
import random
from array import array
from functools import cache

import pytest

from etl.coverage import EVERYTHING, NEGATIVE_INFINITY, POSITIVE_INFINITY, Coverage, Span
from etl.simulator import generate_account
from etl.walk import Walk
from tests.support.flight import Flight, Line, fly

TOKENS = [6_000, 28_000, 100_000]
CONCURRENCY = [4, 8]
ROUND_AT_THE_END = 1
"""The requests of the last round need not be as many as fit in it."""


def fewest(tokens: int) -> int:
    """The pages that are allowed for so many tokens on a quiet list: a tenth more than without any
    overlap; on a short list the last of them is not divided."""
    return math.ceil(1.10 * tokens / 500)


def assert_busy(flight: Flight, concurrency: int, *, start: float) -> None:
    """From ``start`` to the last round, as many requests are in flight as wanted."""
    for moment in range(math.ceil(start), math.ceil(flight.ended) - ROUND_AT_THE_END):
        assert flight.in_flight(moment) == concurrency, moment
    rounds = math.ceil(len(flight.requests) / concurrency)
    assert flight.ended <= rounds + start


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("concurrency", CONCURRENCY)
@pytest.mark.parametrize("churn", [0, 1])
def test_a_full_walk_is_busy_from_the_second_request_on(
    tokens: int, concurrency: int, churn: int
) -> None:
    line = Line(tokens, seed=tokens, churn=churn)
    walk = Walk(in_flight=concurrency)
    flight = fly(line, walk, concurrency)
    assert walk.coverage == Coverage([EVERYTHING])
    assert_busy(flight, concurrency, start=1)
    assert line.requests <= fewest(tokens)


@pytest.mark.parametrize("tokens", [2_000, 6_000, 8_000])
@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_with_the_length_of_a_short_list_it_is_busy_from_the_first_request_on(
    tokens: int, concurrency: int
) -> None:
    line = Line(tokens, seed=tokens, churn=0)
    walk = Walk(in_flight=concurrency, total_count=tokens - 7)
    flight = fly(line, walk, concurrency)
    assert walk.coverage == Coverage([EVERYTHING])
    assert_busy(flight, concurrency, start=0)
    assert line.requests <= fewest(tokens)


@pytest.mark.parametrize("tokens", [0, 2, 499, 600, 1_400])
def test_a_short_list_needs_no_request_in_vain(tokens: int) -> None:
    line = Line(tokens, seed=2, churn=0)
    walk = Walk(in_flight=8)
    flight = fly(line, walk, 8)
    assert walk.finished
    assert line.requests <= max(2, fewest(tokens))
    assert flight.ended <= 2


@cache
def bulk_uploads(tokens: int, seed: int) -> array[int]:
    """The seconds of an account's tokens, made once for all that walk over them."""
    return array("q", (token.created_at for token in generate_account(tokens, seed=seed).line))


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("concurrency", CONCURRENCY)
@pytest.mark.parametrize("seed", range(3))
def test_an_account_with_bulk_uploads_costs_half_a_page_more_for_each_request_in_flight(
    tokens: int, concurrency: int, seed: int
) -> None:
    """More than half of its tokens share their second with others, up to 40 of them.  Where the tie
    at a seam is known, the overlap can be as large as needed and no larger; each further request
    in flight either begins before it is known, or in a part of its own, whose last page is
    partly in vain."""
    line = Line.of(bulk_uploads(tokens, seed))
    alone = Walk(in_flight=1)
    fly(line, alone, 1)
    assert alone.finished
    assert line.requests <= fewest(tokens)
    line.requests = 0
    walk = Walk(in_flight=concurrency)
    flight = fly(line, walk, concurrency)
    assert walk.coverage == Coverage([EVERYTHING])
    assert line.requests <= fewest(tokens) + concurrency / 2
    assert flight.ended <= 1.15 * line.requests / concurrency + 2


def test_large_ties_everywhere_cost_no_more_than_one_request_after_the_other() -> None:
    source, second = random.Random(3), 10**9
    seconds: list[int] = []
    while len(seconds) < 60_000:
        second += source.randrange(1, 50)
        seconds += [second] * source.randrange(1, 200)
    line = Line.of(seconds)
    fly(line, Walk(in_flight=1), 1)
    alone, line.requests = line.requests, 0
    walk = Walk(in_flight=8)
    flight = fly(line, walk, 8)
    assert walk.coverage == Coverage([EVERYTHING])
    assert line.requests <= 1.10 * alone
    assert flight.ended <= 0.25 * alone


# --- parts of the list ---------------------------------------------------------------------------

ACCOUNT = 200_000


@pytest.fixture(scope="module")
def account() -> Line:
    return Line(ACCOUNT, seed=5, churn=0)


@pytest.mark.parametrize("rows", [6_000, 100_000])
@pytest.mark.parametrize("concurrency", CONCURRENCY)
@pytest.mark.parametrize("hinted", [True, False])
def test_a_range_is_found_in_a_few_rounds_and_then_read_busily(
    account: Line, rows: int, concurrency: int, hinted: bool
) -> None:
    begin = 40_000
    target = Span(account.seconds[begin], account.seconds[begin + rows])
    hints = [(target.lower - 1, begin + 5), (target.upper - 1, begin + rows + 5)]
    account.requests = 0
    walk = Walk(target, in_flight=concurrency, positions=hints if hinted else ())
    flight = fly(account, walk, concurrency)
    assert walk.coverage.contains_span(target)
    found = next(left for left, request in flight.requests if request.size > 1)
    search = sum(1 for _, request in flight.requests if request.size == 1)
    assert found <= (1 if hinted else 4)
    assert search <= (2 if hinted else 2 * math.log2(ACCOUNT / 500) + 10)
    assert_busy(flight, concurrency, start=found + (0 if hinted else 1))
    assert _requests(flight) - search <= fewest(rows) + (2 if hinted else concurrency / 2)


@pytest.mark.parametrize("tokens", [2_000, 6_000])
@pytest.mark.parametrize("concurrency", CONCURRENCY)
@pytest.mark.parametrize("hinted", [True, False])
def test_a_range_that_begins_before_all_tokens_is_read_busily(
    tokens: int, concurrency: int, hinted: bool
) -> None:
    """It was read with one request in flight: the search itself proves its first seconds."""
    line = Line(tokens, seed=1, churn=0)
    target = Span(line.seconds[0] - 1_000, POSITIVE_INFINITY)
    hints = [(target.lower - 1, 0), (POSITIVE_INFINITY - 1, tokens)]
    walk = Walk(target, in_flight=concurrency, positions=hints if hinted else ())
    flight = fly(line, walk, concurrency)
    assert walk.coverage.contains_span(target)
    pages = [left for left, request in flight.requests if request.size > 1 and left > 0]
    assert flight.in_flight(pages[0]) == min(concurrency, len(pages))
    assert flight.ended <= 2 + math.ceil(len(pages) / concurrency)
    assert _requests(flight) <= fewest(tokens) + 4


def _requests(flight: Flight) -> int:
    return len(flight.requests)


@pytest.mark.parametrize("rows", [6_000, 100_000])
@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_a_range_from_the_beginning_is_read_while_its_end_is_sought(
    account: Line, rows: int, concurrency: int
) -> None:
    account.requests = 0
    target = Span(NEGATIVE_INFINITY, account.seconds[rows])
    walk = Walk(target, in_flight=concurrency)
    flight = fly(account, walk, concurrency)
    assert walk.coverage.contains_span(target)
    search = sum(1 for _, request in flight.requests if request.size == 1)
    assert search <= math.log2(ACCOUNT / 500) + 5
    assert _requests(flight) - search <= fewest(rows) + concurrency
    assert flight.ended <= _requests(flight) / concurrency + 3


@pytest.mark.parametrize("new", [6_000, 100_000])
@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_the_newest_are_read_busily_where_their_number_is_presumed(
    account: Line, new: int, concurrency: int
) -> None:
    account.requests = 0
    target = Span(account.seconds[ACCOUNT - new], POSITIVE_INFINITY)
    hint = [(target.lower - 1, ACCOUNT - new + 3)]
    walk = Walk(target, in_flight=concurrency, newest_first=True, positions=hint)
    flight = fly(account, walk, concurrency)
    assert walk.coverage.contains_span(target)
    assert_busy(flight, concurrency, start=1)
    assert _requests(flight) <= fewest(new)


@pytest.mark.parametrize("new", [0, 100, 1_000, 3_000])
@pytest.mark.parametrize("hinted", [True, False])
def test_few_new_tokens_need_few_requests(account: Line, new: int, hinted: bool) -> None:
    account.requests = 0
    target = Span(account.seconds[ACCOUNT - new - 30], POSITIVE_INFINITY)
    hints = [(target.lower - 1, ACCOUNT - new - 30)] if hinted else []
    walk = Walk(target, in_flight=8, newest_first=True, positions=hints)
    flight = fly(account, walk, 8)
    assert walk.coverage.contains_span(target)
    pages = math.ceil((new + 30) / 460)
    assert _requests(flight) <= (pages if hinted else 2 * pages)
    assert flight.ended <= (2 if hinted else 1 + math.log2(2 * pages))
