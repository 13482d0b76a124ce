"""What is not known is NULL, not 0: before a run has read all tokens, or all open ones."""

from __future__ import annotations

from typing import Final

from etl.warehouse.schema.migration import enter_schema, install_view

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

VIEWS: Final = ("upload_token_daily_status", "upload_mart", "upload_user_rename")


def upgrade() -> None:
    enter_schema()
    for name in VIEWS:
        install_view(name)


def downgrade() -> None:
    """The views have the same columns and tell the same of everything that is known: they stay."""
    enter_schema()
