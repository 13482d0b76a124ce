"""Since when versions are whole, and what has failed: views that others read, each said once."""

from __future__ import annotations

from typing import Final

from alembic import op

from etl.warehouse.schema.migration import enter_schema, install_view

revision = "0017"
down_revision = "0015"
branch_labels = None
depends_on = None

VIEWS: Final = (
    "upload_token_horizon",
    "upload_token_daily_status",
    "upload_bytes_daily",
    "upload_failure",
)
"""In the order in which they build on each other."""


def upgrade() -> None:
    enter_schema()
    for name in VIEWS:
        install_view(name)


def downgrade() -> None:
    """The views that there were tell the same, and stay with the horizon that they read.

    It goes with what it reads, in revision 0003.
    """
    enter_schema()
    op.execute("drop view upload_failure")
