"""How long a token was in the statuses that it has left, so that durations read one table.

Old warehouses are filled from their changes of status.  The columns and the indexes come first, so
that a migration that was interrupted can be started again, and nothing is filled that the old
program then adds to.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.filling import stay_filling
from etl.warehouse.schema.migration import (
    create_index,
    drop_index,
    enter_schema,
    hold_publications,
    install_view,
)

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

INDEX: Final = "ix_upload_token_went_back"
LOG: Final = "upload_token_status_moment_log"
INDEX_BEFORE: Final = f"ix_{LOG}_back"
BACK_BEFORE: Final = (
    "(change_kind = 'absent' or (from_status_code >= 0 and to_status_code > from_status_code)) "
    "is not true"
)
COLUMNS: Final = (
    (
        "earlier_stays",
        "double precision[]",
        "Of a token whose status changed, its stays in a status that are over, four numbers "
        "each: code of the status (32768: not listed, 32769: unknown), seconds at least (-1: "
        "passed unseen), seconds at most, estimated seconds at most; of a token with many, "
        "summed up by status now and then.  Query upload_status_duration.",
    ),
    (
        "went_back",
        "boolean",
        "Whether it may have been in a status twice, or came to one that is not documented; "
        "NULL: no.",
    ),
)
"""Name, type, comment."""
VIEWS: Final = (
    *("upload_status_now", "upload_status_passed", "upload_status_stay"),
    "upload_token_earlier_stay",
    "upload_status_duration",
)
"""In the order in which they build on each other."""


def upgrade() -> None:
    enter_schema()
    for name, kind, words in COLUMNS:
        op.execute(f"alter table upload_token add column if not exists {name} {kind}")
        op.alter_column("upload_token", name, comment=words)
    create_index(INDEX, "upload_token", ["partner_id", "created_at"], where="went_back")
    drop_index(INDEX_BEFORE, LOG)
    enter_schema()
    hold_publications()
    *parts, duration = VIEWS
    for name in parts:
        install_view(name)
    op.execute(sa.text(stay_filling()))
    install_view(duration)


def downgrade() -> None:
    create_index(INDEX_BEFORE, LOG, ["partner_id", "token_id"], where=BACK_BEFORE)
    drop_index(INDEX, "upload_token")
    enter_schema()
    for name in reversed(VIEWS):
        op.execute(f"drop view {name}")
    for name, *_ in COLUMNS:
        op.drop_column("upload_token", name)
