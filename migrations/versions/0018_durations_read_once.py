"""upload_status_duration reads each token once, where it read the table five times.

It tells the same.  What a token had passed when it was first seen is told by upload_status_now, in
new columns, and upload_status_passed reads it there.  sync_freshness counts in fewer steps.
"""

from __future__ import annotations

from typing import Final

from etl.warehouse.schema.migration import enter_schema, install_view

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

VIEWS: Final = (
    *("upload_status_now", "upload_status_passed", "upload_status_duration"),
    "sync_freshness",
)
"""In the order in which they build on each other."""


def upgrade() -> None:
    enter_schema()
    for name in VIEWS:
        install_view(name)


def downgrade() -> None:
    """The views tell the same as before, and stay; they go with their columns, in revision 0016."""
