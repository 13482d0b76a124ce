"""Observations: what the pages of one batch showed, one row per token id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import repeat
from typing import Any, Final, NamedTuple

import msgspec

from etl.coverage import EVERYTHING, Span
from etl.tokens.page import Page
from etl.tokens.token import DUPLICATE_ID, TIE_ORDER, Rejected, Token
from etl.warehouse.ledger.run import OpenRun

_new_tuple: Final = tuple.__new__


class Seen(NamedTuple):
    token: Token
    observed_at: datetime
    raw: msgspec.Raw | bytes
    digest: int
    user_digest: int
    """``NO_USER`` without a user."""


def taken_by(run: OpenRun, page: Page) -> Page:
    """The page without the rows that the run ignores: for a backfill, those outside its range.

    Rows without a place on the line are in no range.  A lookup's page is returned unchanged.
    """
    if run.range == EVERYTHING or page.asked is not None:
        return page
    lower, upper = run.range
    span = None if page.span is None else page.span.clipped(run.range)
    inside = [
        index for index, second in enumerate(page.tokens.created_seconds) if lower <= second < upper
    ]
    return replace(
        page,
        span=span if span is not None and span.lower < span.upper else None,
        tokens=page.tokens.take(inside),
        raw=[page.raw[index] for index in inside],
        rejected=[
            each
            for each in page.rejected
            if each.created_second is not None and lower <= each.created_second < upper
        ],
    )


def newest_of_each(
    pages: Sequence[Page], only: Collection[str] | None = None
) -> tuple[list[Seen], list[Rejected]]:
    """One row per id: the newest createdAt, then the newest observation; duplicates are rejected.

    The order of pages and rows does not matter.  ``only``: the rows with these ids; None: all.
    """
    rejected = [each for page in pages for each in page.rejected]
    rows = [row for page in pages for row in _rows_of(page, only)]
    times_shown = Counter([row.token.token_id for row in rows])
    if len(times_shown) == len(rows):
        return rows, rejected
    once = [row for row in rows if times_shown[row.token.token_id] == 1]
    newest: dict[str, Seen] = {}
    for here in rows:
        token_id = here.token.token_id
        if times_shown[token_id] == 1:
            continue
        other = newest.setdefault(token_id, here)
        if other is here:
            continue
        if here.token.created_at != other.token.created_at:
            rejected.append(duplicate(min(here, other, key=_created_at)))
        elif here.observed_at != other.observed_at:
            newest[token_id] = max(here, other, key=_observed_at)
            continue
        newest[token_id] = max(here, other, key=_rank)
    return once + list(newest.values()), rejected


def _rows_of(page: Page, only: Collection[str] | None) -> Iterable[Seen]:
    tokens, raw = page.tokens, page.raw
    if only is not None and not only:
        return []
    if only is not None:
        ids = page.tokens.token_ids
        wanted = [index for index, token_id in enumerate(ids) if token_id in only]
        tokens, raw = tokens.take(wanted), [raw[index] for index in wanted]
    at = repeat(page.facts.received_at)
    values = zip(tokens, at, raw, tokens.digests(), tokens.user_digests(), strict=False)
    return map(_new_tuple, repeat(Seen), values)


def _created_at(seen: Seen) -> datetime:
    return seen.token.created_at


def _observed_at(seen: Seen) -> datetime:
    return seen.observed_at


def seconds_of(page: Page) -> Span:
    """From the first to the last createdAt of a page's tokens, in whole seconds."""
    # Also for a page in descending order, or of a lookup.
    seconds = page.tokens.created_seconds
    return Span(min(seconds), max(seconds) + 1)


def _rank(seen: Seen) -> tuple[Any, ...]:
    """The same order as in ``resolve.resolved`` (``TIE_ORDER``)."""
    token = seen.token
    # None and a value cannot be compared.
    ties = [(value is not None, value) for value in (getattr(token, name) for name in TIE_ORDER)]
    return token.created_at, seen.observed_at, *ties


def duplicate(seen: Seen) -> Rejected:
    return Rejected(
        seen.token.token_id,
        DUPLICATE_ID,
        bytes(seen.raw),
        int(seen.token.created_at.timestamp()),
    )
