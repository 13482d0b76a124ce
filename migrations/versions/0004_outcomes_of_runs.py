"""What a run came to: refused, skipped and dry_run are statuses; the age of its oldest page."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.migration import enter_schema, install_view, require_force

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OLD_STATUSES: Final = ("running", "succeeded", "failed", "abandoned")
STATUSES: Final = (
    *("running", "succeeded", "refused", "failed", "abandoned", "skipped", "dry_run"),
)
VIEWS: Final = (
    "sync_freshness",
    # For their comments.
    "kaltura_time_zone",
    "upload_token_status_moment",
    "upload_token_status_history",
    "upload_outcome",
    "upload_outcome_daily",
    "upload_user_summary",
    "stuck_upload",
)
FRESHNESS_BEFORE: Final = {
    "running, succeeded, refused, failed or abandoned": "running, succeeded, failed or abandoned",
    "run.status not in ('dry_run', 'skipped')": "run.error_kind is distinct from 'dry_run'",
}
"""The lines of the view that this revision changed, and what they were."""


def upgrade() -> None:
    enter_schema()
    op.add_column(
        "sync_run",
        sa.Column(
            "oldest_page_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the oldest reply of its walk was asked for: the age of what it "
            "published.  NULL for runs of program versions that did not keep it.",
        ),
    )
    _allow(STATUSES)
    op.execute(
        "update sync_run set status = case "
        "when overrides ? 'dry_run' or error_kind = 'dry_run' then 'dry_run' else 'refused' end "
        "where status = 'failed' and error_kind in ('dry_run', 'refused')"
    )
    # Nothing goes on from what the audit refused.
    op.execute(
        "delete from upload_token_staging where walk_id in "
        "(select walk_id from sync_run where status in ('refused', 'dry_run'))"
    )
    _comment(STATUSES)
    # With the columns that revision 0002 gave them: the views that read them stay as they are.
    for name in VIEWS:
        install_view(name)


def downgrade() -> None:
    require_force(
        "This downgrade forgets how old the pages of each run were, and which were refused"
    )
    enter_schema()
    op.execute(
        "update sync_run set status = 'failed', error_kind = coalesce(error_kind, status) "
        "where status in ('refused', 'skipped', 'dry_run')"
    )
    _allow(OLD_STATUSES)
    _comment(OLD_STATUSES)
    install_view("sync_freshness", as_it_was=FRESHNESS_BEFORE)
    op.drop_column("sync_run", "oldest_page_at")


def _allow(statuses: tuple[str, ...]) -> None:
    """Replace the CHECK in one statement; the ledger is small, so it is validated at once."""
    words = ", ".join(f"'{status}'" for status in statuses)
    op.execute(
        "-- squawk-ignore ban-drop-constraint, constraint-missing-not-valid\n"
        "alter table sync_run drop constraint ck_sync_run_status, "
        f"add constraint ck_sync_run_status check (status in ({words}))"
    )


def _comment(statuses: tuple[str, ...]) -> None:
    *most, last = statuses
    op.execute(f"comment on column sync_run.status is '{', '.join(most)} or {last}.'")
