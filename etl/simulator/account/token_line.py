"""Tokens in list order: createdAt ascending, ties in insertion order.

A sorted list in blocks: a page at any depth costs O(page), an insertion or removal anywhere
O(block), and a million tokens need 8 bytes each here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

BLOCK = 1024
ORDER_BITS = 40
"""The low bits of a key hold the order of arrival, the high bits createdAt in Unix seconds."""


class Token:
    """One listed token.  ``body`` is its JSON as it goes out; the rest is what lists need."""

    __slots__ = ("body", "id", "key", "listed_since", "status", "user_id")

    def __init__(
        self, token_id: str, key: int, *, status: int, user_id: str | None, body: bytes, since: int
    ) -> None:
        self.id = token_id
        self.key = key
        self.status = status
        self.user_id = user_id
        self.body = body
        self.listed_since = since
        """The number of the mutation that made it appear; 0 for a token of the first state."""

    @property
    def created_at(self) -> int:
        """Unix seconds."""
        return self.key >> ORDER_BITS


def token_key(token: Token) -> int:
    return token.key


class TokenLine:
    """Tokens by key, addressable by offset."""

    def __init__(self, tokens: Sequence[Token] = ()) -> None:
        """``tokens`` must be sorted by key."""
        self._blocks: list[list[Token]] = [
            list(tokens[start : start + BLOCK]) for start in range(0, len(tokens), BLOCK)
        ]
        self._tops = [block[-1].key for block in self._blocks]
        self._starts: list[int] | None = None
        self._length = len(tokens)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Token]:
        for block in self._blocks:
            yield from block

    def __getitem__(self, offset: int) -> Token:
        if not 0 <= offset < self._length:
            raise IndexError(offset)
        starts = self._block_starts()
        at = bisect_right(starts, offset) - 1
        return self._blocks[at][offset - starts[at]]

    def add(self, token: Token) -> None:
        self._length += 1
        if not self._blocks:
            self._blocks.append([token])
            self._tops.append(token.key)
            self._starts = None
            return
        at = min(bisect_left(self._tops, token.key), len(self._blocks) - 1)
        block = self._blocks[at]
        block.insert(bisect_right(block, token.key, key=token_key), token)
        self._tops[at] = block[-1].key
        if len(block) > 2 * BLOCK:
            self._blocks[at : at + 1] = [block[:BLOCK], block[BLOCK:]]
            self._tops[at : at + 1] = [block[BLOCK - 1].key, block[-1].key]
        self._starts = None

    def remove(self, token: Token) -> None:
        at = bisect_left(self._tops, token.key)
        block = self._blocks[at]
        place = bisect_left(block, token.key, key=token_key)
        if block[place] is not token:
            raise KeyError(token.id)
        del block[place]
        self._length -= 1
        if block:
            self._tops[at] = block[-1].key
        else:
            del self._blocks[at], self._tops[at]
        self._starts = None

    def offset_of_key(self, key: int) -> int:
        """How many tokens have a smaller key."""
        at = bisect_left(self._tops, key)
        if at == len(self._blocks):
            return self._length
        return self._block_starts()[at] + bisect_left(self._blocks[at], key, key=token_key)

    def offset_of_second(self, created_at: int) -> int:
        """How many tokens were created before this second."""
        return self.offset_of_key(created_at << ORDER_BITS)

    def slice(self, start: int, stop: int) -> list[Token]:
        """Tokens at the offsets ``start`` (included) to ``stop`` (excluded)."""
        start, stop = max(start, 0), min(stop, self._length)
        if start >= stop:
            return []
        starts = self._block_starts()
        at = bisect_right(starts, start) - 1
        rows = self._blocks[at][start - starts[at] : stop - starts[at]]
        while len(rows) < stop - start:
            at += 1
            rows += self._blocks[at][: stop - start - len(rows)]
        return rows

    def _block_starts(self) -> list[int]:
        if self._starts is None:
            self._starts = [0, *accumulate(map(len, self._blocks))][:-1]
        return self._starts
