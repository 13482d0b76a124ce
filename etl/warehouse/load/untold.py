"""Values that a row does not tell: the known ones are filled in before anything is compared.

So a value that cannot be used makes no version, whichever way its row is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa

from etl.tokens.page import Page
from etl.tokens.token import TOKEN_COLUMNS, Rejected, Token
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.planning import known_rows
from etl.warehouse.schema.database import Database


def told_in_full(
    connection: sa.Connection, database: Database, run: OpenRun, pages: Sequence[Page]
) -> Sequence[Page]:
    """The pages with the known values in place of those that their rows do not tell.

    Each such row is among the page's rejected rows as well.  If no value is known, there is none.
    """
    ids = {page.tokens.token_ids[index] for page in pages for index in page.tokens.untold}
    if not ids:
        return pages
    known = _known(connection, database, run, ids) if run.baseline.knows_tokens else {}
    return [_completed(page, known) if page.tokens.untold else page for page in pages]


def _completed(page: Page, known: Mapping[str, Token]) -> Page:
    tokens = page.tokens
    seconds = tokens.created_seconds
    completed: dict[int, Token] = {}
    rejected = list(page.rejected)
    for index, (columns, reason) in tokens.untold.items():
        token_id = tokens.token_ids[index]
        was = known.get(token_id)
        if was is not None:
            values = {name: getattr(was, name) for name in columns}
            completed[index] = tokens[index]._replace(**values)
        rejected.append(Rejected(token_id, reason, bytes(page.raw[index]), seconds[index]))
    return replace(page, tokens=tokens.completed(completed), rejected=rejected)


def _known(
    connection: sa.Connection, database: Database, run: OpenRun, token_ids: set[str]
) -> dict[str, Token]:
    """The known ones of these tokens, each by primary key."""
    found, known = known_rows(database, run, token_ids)
    values = [
        # As bytes, in which a token has it.
        sa.func.convert_to(sa.cast(known.c.extra, sa.Text), "UTF8").label(name)
        if name == "extra"
        else known.c[name]
        for name in TOKEN_COLUMNS
    ]
    rows = connection.execute(sa.select(*values).select_from(found))
    return {row.token_id: Token._make(row) for row in rows}
