"""What failed and is FULL_UPLOAD or CLOSED after that was PARTIAL_UPLOAD again, seen or not."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.filling import reopened_filling
from etl.warehouse.schema.migration import enter_schema, hold_publications, install_view

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

VIEWS: Final = ("upload_status_stay", "upload_status_duration")


def upgrade() -> None:
    enter_schema()
    hold_publications()
    for name in VIEWS:
        install_view(name)
    op.execute(sa.text(reopened_filling()))


def downgrade() -> None:
    """The views have the same columns; what they tell more is true: they stay."""
    enter_schema()
