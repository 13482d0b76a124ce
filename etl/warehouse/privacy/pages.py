"""The hashes of pages whose archived replies were rewritten.

The hash of a reply with an erased name would confirm a guess of it, as the rest of the reply is in
the archive; and the ledger has the hashes of what is archived.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from etl.warehouse.engine import transaction
from etl.warehouse.privacy.hold import Hold
from etl.warehouse.schema.tables import alias_of


class PageHash(NamedTuple):
    """The new hash of a page.  The time tells it from one of the same number, never staged."""

    seq: int
    received_at: datetime
    body_sha256: bytes


def rehash_pages(hold: Hold, run_id: int, pages: Sequence[PageHash]) -> None:
    """Store the hashes of pages of the walk of a run, as far as they are still in the ledger."""
    page, run = hold.database.tables.sync_page, hold.database.tables.sync_run
    other = alias_of(run, "other")
    walk = (
        sa.select(other.c.walk_id)
        .where(other.c.partner_id == hold.partner_id, other.c.run_id == run_id)
        .scalar_subquery()
    )
    new = sa.func.unnest(
        sa.cast([each.seq for each in pages], sa.ARRAY(sa.BigInteger)),
        sa.cast([each.received_at for each in pages], sa.ARRAY(sa.DateTime(timezone=True))),
        sa.cast([each.body_sha256 for each in pages], sa.ARRAY(sa.LargeBinary)),
    ).table_valued("seq", "received_at", "body_sha256")
    hashes = new.render_derived()
    with transaction(hold.database.engine, durable=True) as connection:
        hold.fence(connection)
        connection.execute(
            sa.update(page)
            .where(
                page.c.run_id.in_(
                    sa.select(run.c.run_id).where(
                        run.c.partner_id == hold.partner_id, run.c.walk_id == walk
                    )
                ),
                page.c.seq == hashes.c.seq,
                page.c.received_at == hashes.c.received_at,
            )
            .values(body_sha256=hashes.c.body_sha256)
        )
