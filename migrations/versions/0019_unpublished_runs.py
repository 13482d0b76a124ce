"""An index of the runs that have not published: what is at work is found in a long ledger, too."""

from __future__ import annotations

from typing import Final

from etl.warehouse.schema.migration import create_index, drop_index, enter_schema, install_view

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

INDEX: Final = "ix_sync_run_unpublished"


def upgrade() -> None:
    create_index(INDEX, "sync_run", ["partner_id", "run_id"], where="published_at is null")
    enter_schema()
    install_view("sync_freshness")


def downgrade() -> None:
    """The view tells the same, and stays."""
    drop_index(INDEX, "sync_run")
    enter_schema()
