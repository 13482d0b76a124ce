"""Views that tell what happened, or that it is not known; names of statuses in the history."""

from __future__ import annotations

from typing import Final

from alembic import op

from etl.warehouse.schema.migration import enter_schema, install_view
from etl.warehouse.schema.views import view_files

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

CHANGED: Final = (
    "kaltura_time_zone",
    "upload_token_status_name",
    "upload_token_history",
    # They return rows of the history, which has more columns now.
    "upload_token_as_of",
    "upload_token_happened_by",
    "upload_token_snapshot_dbt",
    "sync_freshness",
    "sync_night",
)
ADDED: Final = ("upload_user_rename", "upload_mart")
"""In the order in which they build on each other."""
LATER: Final = ("upload_status_duration", "upload_bytes_daily", "upload_bytes_arrival")
"""Views of this revision that later ones install, and what these read."""


def upgrade() -> None:
    enter_schema()
    comments = {view.name: view.columns for view in view_files()}
    for name in (*CHANGED, *ADDED):
        install_view(name, like=comments[name])


def downgrade() -> None:
    """The views that there were keep the columns that they have got: a view cannot lose one."""
    enter_schema()
    for name in reversed(ADDED):
        op.execute(f"drop view {name}")
    for name in LATER:
        op.execute(f"drop view if exists {name}")
