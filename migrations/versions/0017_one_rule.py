"""What has failed, and since when the versions are whole, once: views that others read.

DELETED is an outcome group of its own: what was deleted has not failed.  sync_night and
upload_token_daily_status tell the same as before, with less work in a long ledger.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.migration import enter_schema, install_view

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

VIEWS: Final = (
    "upload_token_horizon",
    "upload_token_daily_status",
    "upload_bytes_daily",
    "upload_failure",
    "sync_night",
)
"""In the order in which they build on each other."""
DELETED: Final = 5
CHECK: Final = "ck_upload_token_status_outcome_group"
GROUPS: Final = ("open", "succeeded", "failed", "deleted")
WORDS: Final = (
    "open, succeeded, failed or deleted: as upload_outcome calls what is in it for good, unless it "
    "was CLOSED before."
)
GROUPS_BEFORE: Final = ("open", "succeeded", "failed")
WORDS_BEFORE: Final = "open, succeeded or failed."


def upgrade() -> None:
    enter_schema()
    for name in VIEWS:
        install_view(name)
    _set_group("deleted", GROUPS, WORDS)


def downgrade() -> None:
    """The views that there were tell the same, and stay with the horizon that they read.

    It goes with what it reads, in revision 0003.
    """
    enter_schema()
    _set_group("failed", GROUPS_BEFORE, WORDS_BEFORE)
    op.execute("drop view upload_failure")


def _set_group(of_deleted: str, groups: tuple[str, ...], words: str) -> None:
    """Say which groups there are, and that of DELETED; the table has one row per status."""
    listed = ", ".join(f"'{group}'" for group in groups)
    op.execute(
        "-- squawk-ignore ban-drop-constraint\n"
        f"alter table upload_token_status drop constraint {CHECK}"
    )
    status = sa.table(
        "upload_token_status",
        sa.column("code", sa.SmallInteger),
        sa.column("outcome_group", sa.Text),
    )
    op.execute(sa.update(status).where(status.c.code == DELETED).values(outcome_group=of_deleted))
    op.execute(
        "-- squawk-ignore constraint-missing-not-valid\n"
        f"alter table upload_token_status add constraint {CHECK} "
        f"check (outcome_group in ({listed}))"
    )
    op.alter_column("upload_token_status", "outcome_group", comment=words)
