"""Fingerprints: whether the rows of an interval are as they are known, by their digests alone.

The server gives the digests of the known tokens in the seconds of a batch; those of the rows are
made from the pages.  A row whose digest is known is as it was.  A known token inside a span whose
digest no row has is missing or has changed.  Only the rest is compared by columns
(``etl.warehouse.load.compare``).

A digest is never wrong about what it calls different, which the columns check; and every run
compares some of its pages by columns as well, so that a digest that is wrong about what it calls
equal does not stay unnoticed.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from etl.coverage import Coverage
from etl.errors import DataRefused
from etl.tokens.digest import DIGEST_COLUMNS, NO_USER
from etl.tokens.page import Page
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.observations import Seen
from etl.warehouse.load.planning import in_walk, intervals, listed_within, rows_within
from etl.warehouse.schema.database import Database

FINGERPRINT: Final = "fingerprint"
FULL: Final = "full"
"""How a run compares: by digests first, or all rows by columns."""
COLUMNS: Final = "columns"
"""How a page was compared, besides ``FINGERPRINT``: see ``sync_page.compared_by``."""
CHECKED_ONE_IN: Final = 64
"""One page in so many is compared by its columns besides, others in the next run."""
_DIGEST_BYTES: Final = 8


class KnownDigests(NamedTuple):
    """The digests of the known listed tokens in the seconds of a batch, each with its user's."""

    every: dict[int, int]
    """Of the tokens in all seconds from the first to the last row of each page."""
    inside: frozenset[int]
    """Of those in the spans: there the batch shows everything."""
    undigested: int
    """Known tokens in these seconds without a digest, or with that of another one among them."""

    def hold(self, digest: int, user_digest: int) -> bool:
        """Whether a row with these digests is known as it is.

        Once its user was deleted in Kaltura, a row has none: the known one is kept.
        """
        return digest in self.every and user_digest in (self.every[digest], NO_USER)


class Unlike(NamedTuple):
    """What the digests leave to be compared by columns."""

    token_ids: set[str]
    """Rows with these ids."""
    unaccounted: list[int]
    """Digests of known tokens inside the spans that no row has."""
    colliding: set[str]
    """Of ``token_ids``, those that share their digest with another one."""


def goes_by_columns(run: OpenRun, page: Page) -> bool:
    """Whether all rows of the page are compared by columns: an odd page, or one to check.

    Rejected rows and two rows of an id need the comparison that records them.
    """
    ids = page.tokens.token_ids
    if page.rejected or len(set(ids)) < len(ids):
        return True
    return page.seq is not None and is_checked(run, page.seq)


def is_checked(run: OpenRun, seq: int) -> bool:
    """Whether the run checks its page ``seq`` by columns besides.

    One page in ``CHECKED_ONE_IN``, and each page in one of so many runs that publish.
    """
    # Not by the number of the run, which may grow regularly: other accounts have the rest.
    return (seq + run.baseline.published_runs) % CHECKED_ONE_IN == 0


def unlike(pages: Iterable[Page], by_columns: Iterable[bool], known: KnownDigests) -> Unlike:
    """The rows of the batch that are not known as they are, and the digests that no row has.

    ``by_columns`` tells of each page whether all its rows are to be compared by columns.  Rows of
    two tokens with the same digest are compared so too: by it, one could pass for the other.
    """
    unlike_ids: set[str] = set()
    pairs = known.every.items()
    shown: set[int] = set()
    owners: set[tuple[int, str]] = set()
    for page, columns in zip(pages, by_columns, strict=True):
        ids, digests = page.tokens.token_ids, page.tokens.digests()
        users = page.tokens.user_digests()
        shown.update(digests)
        owners.update(zip(digests, ids, strict=True))
        if columns:
            unlike_ids.update(ids)
        elif not pairs >= set(zip(digests, users, strict=True)):
            unlike_ids.update(
                token_id
                for token_id, digest, user in zip(ids, digests, users, strict=True)
                if not known.hold(digest, user)
            )
    colliding: set[str] = set()
    if len(owners) > len(shown):
        times = Counter(digest for digest, _ in owners)
        colliding = {token_id for digest, token_id in owners if times[digest] > 1}
    return Unlike(unlike_ids | colliding, list(known.inside - shown), colliding)


def known_digests(
    connection: sa.Connection,
    database: Database,
    partner_id: int,
    *,
    seconds: Coverage,
    spans: Coverage,
    open_only: bool = False,
) -> KnownDigests:
    """Read them from the index of listed tokens.  With ``open_only``, of the open tokens alone."""
    parts = intervals(spans, others=[hole for span in seconds for hole in spans.holes(span)])
    names = (*DIGEST_COLUMNS, "user_id")
    known = listed_within(database, partner_id, parts, names, open_only=open_only)
    is_digested = digested(known)
    rows = connection.execute(
        sa.select(
            parts.c.is_first,
            _joined(known.c.digest).filter(is_digested),
            _joined(sa.func.coalesce(known.c.user_digest, NO_USER)).filter(is_digested),
            sa.func.count().filter(sa.not_(is_digested)),
        )
        .select_from(parts.join(known, sa.true()))
        .group_by(parts.c.is_first)
    )
    every: dict[int, int] = {}
    inside: frozenset[int] = frozenset()
    undigested = 0
    for is_inside, digests, users, without in rows:
        undigested += without
        if digests is not None:
            split = _split(digests)
            undigested += len(split)
            every.update(zip(split, _split(users), strict=True))
            inside = frozenset(split) if is_inside else inside
    return KnownDigests(every, inside, undigested - len(every))


def digested(token: Any) -> sa.ColumnElement[bool]:
    """Whether a known token has its digests."""
    return sa.and_(
        token.c.digest.is_not(None),
        sa.or_(token.c.user_digest.is_not(None), token.c.user_id.is_(None)),
    )


def staged_in(
    connection: sa.Connection, database: Database, run: OpenRun, seconds: Coverage
) -> set[str]:
    """The tokens created in these seconds of which the walk has staged something.

    Their later observations must be staged too, even if they show no change.
    """
    if not run.walk.counts.staged:
        return set()
    staging, parts = database.tables.upload_token_staging, intervals(seconds)
    staged = rows_within(parts, staging, ("token_id",), in_walk(staging, run))
    return set(
        connection.scalars(sa.select(staged.c.token_id).select_from(parts.join(staged, sa.true())))
    )


def require_unlike(known: KnownDigests, differing: Iterable[Seen]) -> None:
    """Raise DataRefused if the digests call a row known that differs by its columns."""
    wrong = [each for each in differing if known.hold(each.digest, each.user_digest)]
    if wrong:
        token_id = wrong[0].token.token_id
        raise DataRefused(
            f"The digest of token {token_id} (of {len(wrong)}) does not describe its stored row: "
            "another program has changed upload_token, or this is a defect. Nothing was "
            "published. See kaltura-etl verify; sync --compare full does not use digests.",
            reason="digest_mismatch",
            token_id=token_id,
            tokens=len(wrong),
        )


def _joined(digest: sa.ColumnElement[Any]) -> sa.Function[bytes]:
    return sa.func.string_agg(sa.func.int8send(digest), sa.literal(b"", sa.LargeBinary))


def _split(joined: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(joined) // _DIGEST_BYTES}q", joined)
