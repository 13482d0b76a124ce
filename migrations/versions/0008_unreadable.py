"""What sync_run says of unreadable tokens: ids that were looked up count, and holes say after which
rows they are, so that the next run goes straight to them."""

from __future__ import annotations

from typing import Final

from alembic import op

from etl.warehouse.schema.migration import enter_schema

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COMMENTS: Final = {
    "unreadable": "Tokens that the service could not serve: rows in holes, and ids looked up.",
    "holes": "What could not be read: objects with span (int8range of seconds), reason, tokens, "
    "and after (rows of the first second that come before them) where that is known.",
}
COMMENTS_BEFORE: Final = {
    "unreadable": "Positions of the list that the service could not serve; see holes.",
    "holes": "What could not be read: objects with span (int8range of seconds), reason, tokens.",
}


def upgrade() -> None:
    enter_schema()
    for column, words in COMMENTS.items():
        op.alter_column("sync_run", column, comment=words)


def downgrade() -> None:
    enter_schema()
    for column, words in COMMENTS_BEFORE.items():
        op.alter_column("sync_run", column, comment=words)
