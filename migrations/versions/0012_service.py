"""The service that a run reads, so that a walk of another one is not resumed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.migration import enter_schema

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    enter_schema()
    op.add_column(
        "sync_run",
        sa.Column(
            "service",
            sa.Text(),
            nullable=True,
            comment="Address of the service that it read: a walk of another one is never resumed.  "
            "NULL for runs of program versions that did not record it.",
        ),
    )


def downgrade() -> None:
    """No word is wanted: it matters only for a walk that might be resumed within a few hours."""
    enter_schema()
    op.drop_column("sync_run", "service")
