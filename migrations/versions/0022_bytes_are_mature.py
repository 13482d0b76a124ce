"""upload_bytes_daily says of each day whether later runs can still change it."""

from __future__ import annotations

from typing import Final

from etl.warehouse.schema.migration import enter_schema, install_view

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

VIEWS: Final = ("upload_bytes_daily",)


def upgrade() -> None:
    enter_schema()
    for name in VIEWS:
        install_view(name)


def downgrade() -> None:
    """The view has one column more at its end, and stays."""
    enter_schema()
