"""What running and complete mean, once: functions that the views of the ledger use."""

from __future__ import annotations

from typing import Final

from etl.warehouse.schema.migration import enter_schema, install_view

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NAMES: Final = (
    "sync_run_state",
    "sync_tolerated_holes",
    "sync_run_is_complete",
    "sync_freshness",
    "sync_night",
)
"""In the order in which they build on each other."""


def upgrade() -> None:
    enter_schema()
    for name in NAMES:
        install_view(name)


def downgrade() -> None:
    """The views have the columns that they had, and read nothing that is newer: they stay.

    The functions go with the views, in revision 0002.
    """
