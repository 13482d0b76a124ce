"""History for analysts: what runs did not see, coverage of open tokens, views, two indexes.

The views and functions are in ``sql/views``; those that read others are installed after them.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE

from etl.warehouse.schema.migration import create_index, enter_schema, install_view
from etl.warehouse.schema.views import version_comments

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

VIEWS: Final = (
    "upload_token_status_name",
    "upload_token_history",
    "kaltura_time_zone",
    "upload_size_bucket",
    "upload_token_as_of",
    "upload_token_happened_by",
    "upload_token_status_moment",
    "sync_run_state",
    "sync_tolerated_holes",
    "sync_run_is_complete",
    "sync_freshness",
    "stuck_upload",
    "upload_token_snapshot_dbt",
)
"""In the order in which they build on each other."""
LATER: Final = (
    *("upload_user_summary", "upload_outcome_daily", "upload_outcome"),
    "upload_token_status_history",
)
"""Views of this revision that are installed by revision 0010."""
FUNCTIONS: Final = {
    "upload_token_status_name": "upload_token_status_name(smallint)",
    "kaltura_time_zone": "kaltura_time_zone()",
    "upload_size_bucket": "upload_size_bucket(smallint)",
    "sync_run_state": "sync_run_state(text, timestamptz)",
    "sync_tolerated_holes": "sync_tolerated_holes(jsonb, boolean)",
    "sync_run_is_complete": "sync_run_is_complete(int8multirange, jsonb)",
    "upload_token_as_of": "upload_token_as_of(timestamptz)",
    "upload_token_happened_by": "upload_token_happened_by(timestamptz)",
}
WITH_ALL_COLUMNS: Final = ("upload_token_history", "upload_token_snapshot_dbt")
INDEXES: Final = ("ix_upload_token_superseded_valid", "ix_sync_run_published")


def upgrade() -> None:
    create_index(
        "ix_upload_token_superseded_valid", "upload_token_superseded", ["valid_to", "valid_from"]
    )
    create_index(
        "ix_sync_run_published",
        "sync_run",
        ["partner_id", "published_at"],
        where="published_at is not null",
    )
    enter_schema()
    op.add_column(
        "sync_run",
        sa.Column(
            "open_coverage",
            INT8MULTIRANGE(),
            nullable=False,
            server_default=sa.text("'{}'"),
            comment="Seconds of createdAt in which every open token was read (by status filter).",
        ),
    )
    _create_unobserved_token()
    like = version_comments()
    for name in VIEWS:
        install_view(name, like=like if name in WITH_ALL_COLUMNS else None)


def downgrade() -> None:
    enter_schema()
    for name in LATER:
        op.execute(f"drop view if exists {name}")
    for name in reversed(VIEWS):
        what = f"function {FUNCTIONS[name]}" if name in FUNCTIONS else f"view {name}"
        op.execute(f"drop {what}")
    # The table is small and says only what narrows an interval: without it they are not narrowed.
    op.drop_table("unobserved_token")
    op.drop_column("sync_run", "open_coverage")
    for name in INDEXES:
        op.execute(f"drop index {name}")


def _create_unobserved_token() -> None:
    op.create_table(
        "unobserved_token",
        sa.Column("partner_id", sa.Integer(), nullable=False, comment="Kaltura account (partner)."),
        sa.Column(
            "token_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="Kaltura's id of the token, bytewise.",
        ),
        sa.Column(
            "run_id", sa.BigInteger(), nullable=False, comment="The run that published without it."
        ),
        sa.Column(
            "reason",
            sa.Text(),
            nullable=False,
            comment="pending (missing, not confirmed) or rejected (its row could not be loaded).",
        ),
        sa.PrimaryKeyConstraint("partner_id", "token_id", "run_id", name="pk_unobserved_token"),
        sa.ForeignKeyConstraint(["run_id"], ["sync_run.run_id"], name="fk_unobserved_token_run_id"),
        sa.CheckConstraint(
            "reason in ('pending', 'rejected')", name=op.f("ck_unobserved_token_reason")
        ),
        comment="Known tokens that a published run covered without seeing their state; rare.",
    )
