"""Digests of tokens, by which an unchanged interval is recognised; how each page was compared.

The digests of known tokens are NULL after this revision: such tokens are compared by their columns,
and the first full run fills the digests in after it has published.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.migration import (
    create_index,
    drop_index,
    enter_schema,
    require_force,
)

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OLD_OPEN_INDEX: Final = "ix_upload_token_open"
NEW_OPEN_INDEX: Final = "ix_upload_token_open_created"
STAGED_INDEX: Final = "ix_upload_token_staging_created"
DIGESTS: Final = {
    "digest": "Digest of token_id and the compared columns but user_id; NULL: not made yet.",
    "user_digest": "Digest of user_id; NULL without one.",
}


def upgrade() -> None:
    _replace_open_index(OLD_OPEN_INDEX, NEW_OPEN_INDEX, "created_at")
    enter_schema()
    for table in ("upload_token", "upload_token_staging"):
        for name, words in DIGESTS.items():
            op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=True, comment=words))
    op.execute(
        "-- squawk-ignore require-concurrent-index-creation\n"
        f"create index {STAGED_INDEX} on upload_token_staging (partner_id, walk_id, created_at)"
    )
    op.add_column(
        "sync_page",
        sa.Column(
            "compared_by",
            sa.Text(),
            nullable=True,
            comment="How its rows were compared: fingerprint or columns; NULL if nothing was "
            "known, and for lookups.",
        ),
    )
    # The table is pruned, so it is validated at once.
    op.execute(
        "-- squawk-ignore constraint-missing-not-valid\n"
        "alter table sync_page add constraint ck_sync_page_compared_by "
        "check (compared_by in ('fingerprint', 'columns'))"
    )
    op.add_column(
        "sync_run",
        sa.Column(
            "digests_filled",
            sa.BigInteger(),
            nullable=False,
            server_default=sa.text("0"),
            comment="Digests of known tokens filled in after publishing: maintenance without "
            "versions.",
        ),
    )


def downgrade() -> None:
    require_force("This downgrade forgets how each page was compared")
    _replace_open_index(NEW_OPEN_INDEX, OLD_OPEN_INDEX, "status")
    enter_schema()
    op.drop_column("sync_run", "digests_filled")
    op.drop_column("sync_page", "compared_by")
    op.drop_index(STAGED_INDEX, "upload_token_staging")
    for table in ("upload_token", "upload_token_staging"):
        for name in DIGESTS:
            op.drop_column(table, name)


def _replace_open_index(old: str, new: str, column: str) -> None:
    create_index(
        new, "upload_token", ["partner_id", column], where="status in (0, 1, 2) and is_listed"
    )
    drop_index(old, "upload_token")
