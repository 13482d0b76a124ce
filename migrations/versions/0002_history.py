"""History for analysts: what runs did not see, coverage of open tokens, views, an index for times.

The views and functions are in ``sql/views``; those that read others are installed after them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE

from etl.warehouse.migration import enter_schema

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
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


def downgrade() -> None:
    enter_schema()
    # The table is small and says only what narrows an interval: without it they are not narrowed.
    op.drop_table("unobserved_token")
    op.drop_column("sync_run", "open_coverage")


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
