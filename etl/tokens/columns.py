"""The tokens of a page, kept as columns: a ``Token`` is made only when it is asked for.

On most nights nearly every row is as it was, and only ids, times and digests of a page are looked
at.  Making 500 tokens of 13 columns costs three times as much as that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import Any, Final, Self, overload

import msgspec

from etl.tokens.digest import DIGESTED, canonical_json, token_digests, user_digest
from etl.tokens.token import TOKEN_COLUMNS, Rejected, Token, Untold

_TIMES: Final = ("created_at", "updated_at")
_TIME_INDEXES: Final = [TOKEN_COLUMNS.index(name) for name in _TIMES]
_CREATED: Final = TOKEN_COLUMNS.index("created_at")
_USER: Final = TOKEN_COLUMNS.index("user_id")
_DIGESTED: Final = [TOKEN_COLUMNS.index(name) for name in DIGESTED]
_convert: Final = msgspec.convert
_new_tuple: Final = tuple.__new__

Identity = tuple[str, int | datetime]
"""Id and createdAt of a token: in Unix seconds, or a time that is not a whole second."""


class PageTokens(Sequence[Token]):
    """Tokens in page order.  Immutable; equal to any sequence of the same tokens."""

    __slots__ = ("_columns", "_digests", "_tokens", "untold")

    def __init__(
        self, columns: Sequence[Sequence[Any]], untold: Mapping[int, Untold] | None = None
    ) -> None:
        """``columns`` are those of a ``Token``; a time may be an int, in Unix seconds."""
        self._columns = list(columns)
        self.untold = untold or {}
        """By index, the tokens that are not told in full: until their known values are filled in
        (``etl.warehouse.load.untold``), their digests are not those of the token."""
        for index in _TIME_INDEXES:
            if datetime in set(map(type, columns[index])):
                # One form for equal times, which have equal digests.
                self._columns[index] = [_as_second(moment) for moment in columns[index]]
        self._tokens: list[Token] | None = None
        self._digests: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, tokens: Iterable[Sequence[Any]], untold: Mapping[int, Untold] | None = None
    ) -> Self:
        """These tokens, or rows of the same values with times as Unix seconds, as columns."""
        return cls(list(zip(*tokens, strict=True)) or [() for _ in TOKEN_COLUMNS], untold)

    @property
    def token_ids(self) -> Sequence[str]:
        return self._columns[0]

    @property
    def user_ids(self) -> Sequence[str | None]:
        return self._columns[_USER]

    @property
    def created_seconds(self) -> list[int]:
        """createdAt of each token in Unix seconds, rounded down."""
        return [
            moment if type(moment) is int else int(moment.timestamp() // 1)
            for moment in self._columns[_CREATED]
        ]

    @property
    def identities(self) -> Iterator[Identity]:
        """The identity of each token."""
        return zip(self._columns[0], self._columns[_CREATED], strict=True)

    def digests(self) -> tuple[int, ...]:
        """The digest of each token, without its user."""
        if self._digests is None:
            columns = [self._columns[index] for index in _DIGESTED]
            extras = columns[-1]
            if extras.count(None) < len(extras):
                columns[-1] = [each if each is None else canonical_json(each) for each in extras]
            self._digests = token_digests(zip(*columns, strict=True))
        return self._digests

    def user_digests(self) -> list[int]:
        """The digest of each token's user, ``NO_USER`` where it has none."""
        users = self._columns[_USER]
        digest_of = {user: user_digest(user) for user in set(users)}
        return [digest_of[user] for user in users]

    def take(self, indexes: Sequence[int]) -> PageTokens:
        """The tokens at these indexes, in their order."""
        untold = {
            place: self.untold[index]
            for place, index in enumerate(indexes if self.untold else ())
            if index in self.untold
        }
        taken = PageTokens(
            [[column[index] for index in indexes] for column in self._columns], untold
        )
        if self._digests is not None:
            taken._digests = tuple([self._digests[index] for index in indexes])
        return taken

    def completed(self, tokens: Mapping[int, Token]) -> PageTokens:
        """With these tokens at their indexes, and nothing untold any more."""
        return PageTokens(self.replaced(tokens)._columns)

    def replaced(self, tokens: Mapping[int, Token]) -> PageTokens:
        """With these tokens at their indexes."""
        if not tokens:
            return self
        columns = [list(column) for column in self._columns]
        for column, values in zip(columns, PageTokens.of(tokens.values())._columns, strict=True):
            for index, value in zip(tokens, values, strict=True):
                column[index] = value
        return PageTokens(columns, self.untold)

    @overload
    def __getitem__(self, index: int) -> Token: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Token]: ...
    def __getitem__(self, index: int | slice) -> Token | Sequence[Token]:
        if self._tokens is None and isinstance(index, int):
            return self.take([index])._made()[0]
        return self._made()[index]

    def __iter__(self) -> Iterator[Token]:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._columns[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._made() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PageTokens({self._made()!r})"

    def _made(self) -> list[Token]:
        if self._tokens is None:
            columns = list(self._columns)
            for index in _TIME_INDEXES:
                columns[index] = _convert(columns[index], list[datetime | None], strict=False)
            values = zip(*columns, strict=True)
            self._tokens = list(map(_new_tuple, repeat(Token), values))
        return self._tokens


@dataclass(frozen=True, slots=True)
class DecodedRows:
    """A page, row by row: each row is in ``tokens`` or in ``rejected``, both in page order.

    A row of which only a part can be used is in ``tokens``, and in their ``untold``.

    ``positions`` has one entry per row: createdAt in Unix seconds, or None if the row cannot be
    placed.  ``coercions`` counts values that were not loaded exactly as sent, by kind.
    """

    tokens: PageTokens
    rejected: list[Rejected]
    positions: list[float | int | None]
    coercions: Counter[str]


def identity(token: Token) -> Identity:
    """The identity of one token."""
    return token.token_id, _as_second(token.created_at)


def _as_second(moment: Any) -> Any:
    if isinstance(moment, datetime) and not moment.microsecond:
        return int(moment.timestamp())
    return moment
