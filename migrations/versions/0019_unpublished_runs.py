"""An index of the runs that have not published: what is at work is found in a long ledger, too.

And room for changes in the blocks of upload_token; those that are there are filled as they are.
"""

from __future__ import annotations

from typing import Final

from alembic import op

from etl.warehouse.schema.migration import create_index, drop_index, enter_schema, install_view

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

INDEX: Final = "ix_sync_run_unpublished"
ROOMY: Final = "upload_token"


def upgrade() -> None:
    create_index(INDEX, "sync_run", ["partner_id", "run_id"], where="published_at is null")
    enter_schema()
    install_view("sync_freshness")
    op.execute(f"alter table {ROOMY} set (fillfactor = 90)")


def downgrade() -> None:
    """The view tells the same, and stays."""
    drop_index(INDEX, "sync_run")
    enter_schema()
    op.execute(f"alter table {ROOMY} reset (fillfactor)")
