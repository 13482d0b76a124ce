"""The law of the later observation: what was shown last is what must be published.

A second opinion on the pages of a walk, in plain Python: it knows nothing of digests and staging.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from etl.coverage import Span
from etl.tokens.page import Page
from etl.tokens.token import COMPARED, Token
from tests.support.model import KEPT, Row


@dataclass
class LastSeen:
    """What the staged pages and lookups of one walk showed last, by token."""

    shown: dict[str, tuple[datetime, Token]] = field(default_factory=dict)
    odd: set[str] = field(default_factory=set)
    """Tokens of several rows, and of rows of which not all could be loaded: other rules apply to
    them."""
    silent: set[str] = field(default_factory=set)
    """Tokens that did not answer a lookup, the last question about them."""

    def note(self, pages: Iterable[Page], taken: Span) -> None:
        """Pages in any order; rows created outside ``taken`` are none of the run's business."""
        for page in pages:
            at = page.facts.received_at
            self.odd |= {each.token_id for each in page.rejected if each.token_id is not None}
            self.odd |= {page.tokens.token_ids[index] for index in page.tokens.untold}
            for token in page.tokens:
                token_id, second = token.token_id, int(token.created_at.timestamp())
                if page.asked is None and not taken.lower <= second < taken.upper:
                    continue
                known = self.shown.get(token_id)
                if known is not None and known[1].created_at != token.created_at:
                    self.odd.add(token_id)
                if known is None or known[0] <= at:
                    self.shown[token_id] = at, token

    def note_lookup(self, page: Page, taken: Span) -> None:
        self.note([page], taken)
        answered = {token.token_id for token in page.tokens}
        self.silent -= answered
        self.silent |= {*(page.asked or ())} - answered
        for token_id in self.silent:
            self.shown.pop(token_id, None)

    def assert_published(self, rows: Iterable[Row], twins: Collection[str]) -> None:
        """``rows`` of upload_token; ``twins`` are tokens that have had several rows."""
        stored = {row["token_id"]: row for row in rows}
        for token_id, (_, token) in self.shown.items():
            if token_id in self.odd or token_id in twins:
                continue
            row = stored[token_id]
            assert row["is_listed"], token_id
            for name in COMPARED:
                value = getattr(token, name)
                if name == "extra" or (name in KEPT and value is None):
                    continue
                assert row[name] == value, (token_id, name, value, row)
