"""What the warehouse says of an account after a run, for the metrics."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from etl.process.metrics import WarehouseState
from etl.warehouse.engine import connect, transaction
from etl.warehouse.ledger.certificates import is_complete
from etl.warehouse.ledger.replayed import REPLAYED_MODE
from etl.warehouse.schema.tables import build_tables

ASK_SECONDS: Final = 15.0
"""The run is over: its end does not wait long for a figure."""


def warehouse_state(url: str, schema: str, partner_id: int) -> WarehouseState:
    """Raises the errors of ``transaction``; the schema must be of this program's version."""
    tables = build_tables(schema)
    run, token, status = tables.sync_run, tables.upload_token, tables.upload_token_status
    # A run that was replayed has the mode of the original.
    mode = sa.func.coalesce(run.c.overrides[REPLAYED_MODE].astext, run.c.mode).label("mode")
    published = (
        sa.select(
            mode,
            sa.func.max(run.c.published_at).label("published_at"),
            sa.func.max(run.c.published_at).filter(is_complete(run)).label("complete_at"),
        )
        .where(run.c.partner_id == partner_id, run.c.published_at.is_not(None))
        .group_by(mode)
    )
    counted = (
        sa.select(token.c.status, sa.func.count())
        .where(token.c.partner_id == partner_id, token.c.is_listed)
        .group_by(token.c.status)
    )
    engine = connect(url)
    try:
        with transaction(
            engine,
            statement_seconds=ASK_SECONDS,
            transaction_read_only="on",
            row_security="on",
        ) as connection:
            modes = connection.execute(published).all()
            names = connection.execute(sa.select(status.c.code, status.c.name)).all()
            counts: dict[int | None, int] = dict(connection.execute(counted).all())
    finally:
        engine.dispose()
    tokens = {name: counts.pop(code, 0) for code, name in names}
    # As the views name them.
    tokens |= {
        "UNKNOWN" if code is None else f"UNKNOWN_{code}": count for code, count in counts.items()
    }
    return WarehouseState(
        tokens=tokens,
        published_at={mode: at for mode, at, _ in modes},
        complete_at={mode: at for mode, _, at in modes if at is not None},
    )
