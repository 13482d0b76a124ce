"""Which bytes each publication showed to have arrived, and when, so that a day reads few rows.

Old warehouses are filled from their versions.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from etl.warehouse.schema.filling import arrival_filling
from etl.warehouse.schema.migration import enter_schema, hold_publications, install_view

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

LOG: Final = "upload_bytes_arrival_log"
ARRAYS: Final = {
    "earliest_quarters": (
        sa.Integer(),
        "For each number of bytes: not before this quarter of an hour, counted since "
        "1970-01-01 00:00 UTC, in which the last walk that saw the size before began.",
    ),
    "latest_quarters": (sa.Integer(), "Not after this quarter of an hour."),
    "best_quarters": (
        sa.Integer(),
        "Best estimate of the quarter of an hour in which they arrived.",
    ),
    "bytes": (
        sa.BigInteger(),
        "How many: those of each token that was first seen, and sums of what others grew by.",
    ),
}
DAILY_BEFORE: Final = {
    "with zone as materialized (": "with upload_bytes_arrival_log as materialized (\n"
    "    select derived.* from upload_bytes_arrival as derived\n"
    "),\n\nzone as materialized ("
}


def upgrade() -> None:
    enter_schema()
    hold_publications()
    _create_log()
    install_view("upload_bytes_arrival")
    op.execute(arrival_filling())


def downgrade() -> None:
    """The view of days tells the same, from all versions.

    What it reads instead goes with it, in revision 0011.
    """
    enter_schema()
    install_view("upload_bytes_daily", as_it_was=DAILY_BEFORE)
    op.drop_table(LOG)


def _create_log() -> None:
    op.create_table(
        LOG,
        sa.Column("partner_id", sa.Integer(), nullable=False, comment="Kaltura account (partner)."),
        sa.Column("run_id", sa.BigInteger(), nullable=False, comment="The run that published it."),
        sa.Column(
            "is_long",
            sa.Boolean(),
            nullable=False,
            comment="Whether more than a day is between earliest and latest.",
        ),
        sa.Column("utc_day", sa.Date(), nullable=False, comment="Day, in UTC, of the earliest."),
        *[
            sa.Column(name, ARRAY(kind), nullable=False, comment=words)
            for name, (kind, words) in ARRAYS.items()
        ],
        sa.PrimaryKeyConstraint("partner_id", "is_long", "utc_day", "run_id", name=f"pk_{LOG}"),
        comment="Bytes that each publication showed to have arrived, and when; append-only.  Query "
        "upload_bytes_daily, which sums it up.",
    )
    for name in ARRAYS:
        # To compress them would cost a first load more than all else that it does for them.
        op.execute(f"alter table {LOG} alter column {name} set storage external")
