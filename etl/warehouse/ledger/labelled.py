"""Runs by their label: what an orchestrator's earlier try has done already."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from etl.warehouse.engine import transaction
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.revision import require_current


def published_with_label(
    database: Database,
    *,
    partner_id: int,
    label: str,
    mode: str,
    range_from: datetime | None = None,
    range_to: datetime | None = None,
) -> int | None:
    """The newest run of the account that has published with this label, in this mode and for
    this range; None if there is none.

    Raises ConfigurationError for a schema of another revision: no run has looked at it yet.
    """
    sync_run = database.tables.sync_run
    with transaction(database.engine) as connection:
        require_current(connection, database.schema)
        run_id: int | None = connection.scalar(
            sa.select(sa.func.max(sync_run.c.run_id)).where(
                sync_run.c.partner_id == partner_id,
                sync_run.c.status == "succeeded",
                sync_run.c.label == label,
                sync_run.c.mode == mode,
                sync_run.c.range_from.is_not_distinct_from(range_from),
                sync_run.c.range_to.is_not_distinct_from(range_to),
            )
        )
    return run_id
