"""The service that a run reads, so that a walk of another one is not resumed."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.migration import enter_schema

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UNREADABLE: Final = (
    "What could not be read: rows in holes, ids looked up, and one for each second that kept "
    "changing (hole tie_group), of which it is not known how many tokens are missing."
)
UNREADABLE_BEFORE: Final = (
    "Tokens that the service could not serve: rows in holes, and ids looked up."
)


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
    op.alter_column("sync_run", "unreadable", comment=UNREADABLE)


def downgrade() -> None:
    """No word is wanted: it matters only for a walk that might be resumed within a few hours."""
    enter_schema()
    op.alter_column("sync_run", "unreadable", comment=UNREADABLE_BEFORE)
    op.drop_column("sync_run", "service")
