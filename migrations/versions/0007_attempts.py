"""Attempts: every start leaves a row, equal ones are counted in one; labels."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.migration import enter_schema, require_force

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LEASE: Final = "uq_sync_run_running"
DUPLICATES: Final = "ix_rejected_row_duplicate"
COMMENTS: Final = {
    "walk_id": "run_id of the first run of the walk; a resumed run inherits it.  NULL while the "
    "run is starting: it does not hold the lease yet.",
    "started_at": "When the run took the lease; without it, when it started.",
}
COMMENTS_BEFORE: Final = {
    "walk_id": "run_id of the first run of the walk; a resumed run inherits it.",
    "started_at": "When the run took the lease.",
}


def upgrade() -> None:
    enter_schema()
    op.add_column(
        "sync_run",
        sa.Column(
            "label",
            sa.Text(),
            nullable=True,
            comment="What --run-label gave: the orchestrator's name for it.",
        ),
    )
    op.add_column(
        "sync_run",
        sa.Column(
            "attempts",
            sa.Integer(),
            nullable=False,
            server_default=sa.text("1"),
            comment="Equal attempts that this row stands for, one after the other; 0: the row is "
            "spare, because its attempt is counted in an earlier one.",
        ),
    )
    _replace_lease("status = 'running' and walk_id is not null")
    # Rejected rows are few, and pruned.
    op.execute(
        "-- squawk-ignore require-concurrent-index-creation\n"
        f"create index {DUPLICATES} on rejected_row (run_id, token_id) "
        "where reason = 'duplicate_id'"
    )
    for column, words in COMMENTS.items():
        op.alter_column("sync_run", column, comment=words)


def downgrade() -> None:
    require_force("This downgrade forgets labels and how many equal attempts a row stands for")
    enter_schema()
    op.execute("drop view if exists sync_night")  # made by revision 0009
    op.drop_index(DUPLICATES, "rejected_row")
    for column, words in COMMENTS_BEFORE.items():
        op.alter_column("sync_run", column, comment=words)
    op.execute(
        "update sync_run set status = 'abandoned', finished_at = heartbeat_at, walk_id = run_id, "
        "error_kind = 'abandoned', error_message = 'It was starting at a downgrade.' "
        "where status = 'running' and walk_id is null"
    )
    _replace_lease("status = 'running'")
    for column in ("attempts", "label"):
        op.drop_column("sync_run", column)


def _replace_lease(predicate: str) -> None:
    """The ledger is small, so this takes no time; and no run can take the lease meanwhile."""
    op.execute(f"-- squawk-ignore require-concurrent-index-deletion\ndrop index {LEASE}")
    op.execute(
        "-- squawk-ignore require-concurrent-index-creation\n"
        f"create unique index {LEASE} on sync_run (partner_id) where {predicate}"
    )
