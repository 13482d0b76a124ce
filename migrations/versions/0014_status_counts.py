"""How many tokens each publication brought into each status, so that a day is a sum of few rows.

Old warehouses are filled from their changes of status.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.filling import count_filling
from etl.warehouse.schema.migration import enter_schema, hold_publications, install_view

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

LOG: Final = "upload_token_status_count_log"
DAILY_BEFORE: Final = {f"from {LOG} as log": "from upload_token_status_count as log"}


def upgrade() -> None:
    enter_schema()
    hold_publications()
    _create_log()
    install_view("upload_token_status_count")
    op.execute(count_filling())


def downgrade() -> None:
    """The view of days tells the same, from all changes of status.

    What it reads instead goes with it, in revision 0003.
    """
    enter_schema()
    install_view("upload_token_daily_status", as_it_was=DAILY_BEFORE)
    op.drop_table(LOG)


def _create_log() -> None:
    op.create_table(
        LOG,
        sa.Column("partner_id", sa.Integer(), nullable=False, comment="Kaltura account (partner)."),
        sa.Column("run_id", sa.BigInteger(), nullable=False, comment="The run that published it."),
        sa.Column(
            "quarter_hour",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Beginning of the quarter of an hour in which it happened; two days before the "
            "account's first publication for all that happened earlier.",
        ),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="Name of the status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED for those no longer "
            "listed.",
        ),
        sa.Column(
            "status_code",
            sa.SmallInteger(),
            nullable=True,
            comment="Code of the status; NULL for NOT_LISTED and UNKNOWN.",
        ),
        sa.Column(
            "tokens",
            sa.Integer(),
            nullable=False,
            comment="Tokens that came into the status minus those that left it.",
        ),
        sa.Column(
            "unseen_tokens",
            sa.Integer(),
            nullable=False,
            comment="The same of those in PENDING that no run saw so.",
        ),
        sa.PrimaryKeyConstraint("partner_id", "run_id", "quarter_hour", "status", name=f"pk_{LOG}"),
        comment="How many tokens each publication brought into each status or took out of it; "
        "append-only.  Query upload_token_daily_status, which sums it up.",
    )
