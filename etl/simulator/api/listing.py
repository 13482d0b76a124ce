"""uploadToken.list: which tokens a filter selects, in which order, and which page of them."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

from etl.simulator.account.account import DELETED, Account
from etl.simulator.account.token_line import Token, TokenLine, token_key
from etl.simulator.api import errors
from etl.simulator.api.params import object_param
from etl.simulator.api.php import INT64_MAX, to_int, to_text

MAX_IN_VALUES = 500
DEFAULT_PAGE_SIZE = 30
_NOT_SIMULATED = ("userIdEqual", "fileNameEqual", "fileSizeEqual")
_STATUSES = frozenset(map(str, range(6)))


@dataclass(frozen=True, slots=True)
class Pager:
    """``page_size`` None means no limit: the whole list in one reply."""

    page_index: int
    page_size: int | None

    @property
    def offset(self) -> int:
        """Rows before the page; an offset that overflows 64 bits is none at all."""
        offset = (self.page_index - 1) * (self.page_size or 0)
        return offset if offset <= INT64_MAX else 0


def read_pager(params: Mapping[str, Any], page_cap: int) -> Pager:
    """The pager as the service takes it: capped, and without limit for 0, negatives and words."""
    pager = object_param(params, "pager")
    size = min(to_int(pager.get("pageSize", DEFAULT_PAGE_SIZE)), page_cap)
    return Pager(max(to_int(pager.get("pageIndex", 1)), 1), size if size > 0 else None)


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter.  ``order`` is 1, -1, or 0 for no ORDER BY at all."""

    order: int
    ids: frozenset[str] | None = None
    statuses: frozenset[int] | None = None


def read_filter(params: Mapping[str, Any]) -> Filter:
    """The filter of a call; an unknown orderBy is ignored, as are properties that do not exist.

    Filters of the service that are not simulated are refused.
    """
    given = object_param(params, "filter")
    for name in _NOT_SIMULATED:
        if given.get(name) not in (None, ""):
            raise errors.not_simulated(name)
    return Filter(_order(to_text(given.get("orderBy"))), _ids(given), _statuses(given))


def _statuses(given: Mapping[str, Any]) -> frozenset[int] | None:
    """``statusIn`` takes any text; ``statusEqual`` is an enumeration, of which null is 0."""
    many, chosen = to_text(given.get("statusIn")), None
    if many:
        chosen = frozenset(map(to_int, many.split(",")[:MAX_IN_VALUES]))
    if "statusEqual" in given:
        one = given["statusEqual"]
        if one is not None and to_text(one) not in _STATUSES:
            raise errors.invalid_enum(to_text(one), "statusEqual", "KalturaUploadTokenStatus")
        equal = frozenset({to_int(one)})
        chosen = equal if chosen is None else chosen & equal
    return None if chosen is None else chosen - {DELETED}


def _ids(given: Mapping[str, Any]) -> frozenset[str] | None:
    many, one = to_text(given.get("idIn")), to_text(given.get("idEqual"))
    if many:
        return frozenset(many.split(",")[:MAX_IN_VALUES])  # blanks are part of an id
    return frozenset({one}) if one else None


def _order(text: str) -> int:
    for part in text.split(","):
        if part == "+createdAt":
            return 1
        if part == "-createdAt":
            return -1
    return 0


class Lister:
    """Answers lists of one account, and remembers the last costly selection until it changes."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._remembered: tuple[object, int, list[Token]] | None = None

    def page(
        self,
        chosen: Filter,
        pager: Pager,
        *,
        only_user: str | None = None,
        shuffle: random.Random | None = None,
        more_rows: int = 0,
    ) -> tuple[int, list[Token]]:
        """(total count, rows) of a page.

        ``only_user`` keeps one user's tokens, as the service does for a session that is not of
        admin type.  ``shuffle`` shuffles tokens created in the same second.
        ``more_rows`` adds rows beyond the page.
        """
        tokens: TokenLine | list[Token]
        if only_user is None and chosen.order and chosen == Filter(chosen.order):
            tokens = self.account.line
        else:
            tokens = self._select(chosen, only_user)
        total = len(tokens)
        start = pager.offset
        stop = total if pager.page_size is None else start + pager.page_size + more_rows
        span = (min(start, total), min(stop, total))
        if chosen.order == 0 or (chosen.order > 0 and shuffle is None):
            return total, _slice(tokens, *span)
        return total, _slice_by_seconds(tokens, span, chosen.order, shuffle)

    def _select(self, chosen: Filter, only_user: str | None) -> list[Token]:
        key = (chosen, only_user)
        if self._remembered and self._remembered[:2] == (key, self.account.mark):
            return self._remembered[2]
        rows: Iterable[Token] = self.account.line
        if chosen.ids is not None:
            rows = _by_ids(self.account, chosen.ids)
        if chosen.statuses is not None:
            rows = [token for token in rows if token.status in chosen.statuses]
        if only_user is not None:
            rows = [token for token in rows if only_user and token.user_id == only_user]
        # Without ORDER BY the server reads its (partner, status) index, whose entries end in the
        # primary key (id, created_at), or for ids the primary key.  Ordered lists take ties as they
        # came.
        if chosen.order:
            selected = sorted(rows, key=token_key)
        elif chosen.ids is not None:
            selected = sorted(rows, key=lambda token: (token.id, token.key))
        else:
            selected = sorted(rows, key=lambda token: (token.status, token.id, token.key))
        self._remembered = (key, self.account.mark, selected)
        return selected


def _slice(tokens: TokenLine | list[Token], start: int, stop: int) -> list[Token]:
    return tokens[start:stop] if isinstance(tokens, list) else tokens.slice(start, stop)


def _offset_of_second(tokens: TokenLine | list[Token], created_at: int) -> int:
    if isinstance(tokens, list):
        return bisect_left(tokens, created_at, key=lambda token: token.created_at)
    return tokens.offset_of_second(created_at)


def _slice_by_seconds(
    tokens: TokenLine | list[Token],
    span: tuple[int, int],
    order: int,
    shuffle: random.Random | None,
) -> list[Token]:
    """A page of an order that is not simply the line's.

    Descending lists show ties in the same order as ascending ones, as was recorded.  With
    ``shuffle`` the rows of each second come in an order of their own, over page edges too.
    """
    total = len(tokens)
    start, stop = span if order > 0 else (total - span[1], total - span[0])
    rows = _slice(tokens, start, stop)
    if not rows:
        return []
    low = _offset_of_second(tokens, rows[0].created_at)
    high = _offset_of_second(tokens, rows[-1].created_at + 1)
    wide = _slice(tokens, low, high)
    groups = [list(group) for _, group in groupby(wide, key=lambda token: token.created_at)]
    if shuffle is not None:
        for group in groups:
            shuffle.shuffle(group)
    if order < 0:
        groups.reverse()
        start, stop = low + high - stop, low + high - start
    return list(chain.from_iterable(groups))[start - low : stop - low]


def _by_ids(account: Account, ids: Iterable[str]) -> list[Token]:
    """Ids compare without case, as the table's collation has it; they are made in lower case."""
    found = {id(token): token for one in ids for token in account.find(one)}
    for one in ids:
        if one != one.lower():
            found.update({id(token): token for token in account.find(one.lower())})
    return list(found.values())
