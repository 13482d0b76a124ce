"""Erasure and pruning: who was erased, by keyed hash, and what was deleted for its age."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.migration import create_index, enter_schema, require_force

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MARKED = "starts_with(user_id, 'erased:') or starts_with(file_name, 'erased:') or extra ? 'erased'"


def upgrade() -> None:
    for table in ("upload_token", "upload_token_superseded"):
        create_index(f"ix_{table}_marked", table, ["partner_id", "token_id"], where=MARKED)
    enter_schema()
    _create_erasure()
    _create_erasure_key()
    _create_pruning()


def downgrade() -> None:
    require_force(
        "This downgrade drops the list of the erased and its key, without which their data come "
        "back"
    )
    enter_schema()
    # Made by later revisions, and they read what was pruned.
    op.execute("drop view if exists upload_token_daily_status")
    op.execute("drop view if exists upload_token_status_count")
    op.execute("drop view if exists upload_token_horizon")
    op.drop_table("pruning")
    op.drop_table("erasure_key")
    op.drop_table("erasure")
    op.drop_index("ix_upload_token_superseded_marked")
    op.drop_index("ix_upload_token_marked")


def _create_erasure() -> None:
    op.create_table(
        "erasure",
        sa.Column(
            "erasure_id",
            sa.BigInteger(),
            sa.Identity(),
            nullable=False,
            comment="Number of the erasure.",
        ),
        sa.Column("partner_id", sa.Integer(), nullable=False, comment="Kaltura account (partner)."),
        sa.Column("kind", sa.Text(), nullable=False, comment="What was erased: user or token."),
        sa.Column(
            "subject_hash",
            sa.LargeBinary(),
            nullable=False,
            comment="Keyed hash of the user's or the token's id.",
        ),
        sa.Column(
            "key_check",
            sa.LargeBinary(),
            nullable=False,
            comment="Tells which key made the hash, not the key.",
        ),
        sa.Column(
            "erased_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
            comment="When it was done.",
        ),
        sa.Column(
            "versions",
            sa.BigInteger(),
            nullable=False,
            comment="Versions in which a value was replaced.",
        ),
        sa.Column(
            "staged",
            sa.BigInteger(),
            nullable=False,
            comment="Rows of staging in which a value was replaced.",
        ),
        sa.Column(
            "rejected",
            sa.BigInteger(),
            nullable=False,
            comment="Rejected rows whose payload was replaced.",
        ),
        sa.Column("program_version", sa.Text(), nullable=False, comment="Version of the program."),
        sa.PrimaryKeyConstraint("erasure_id", name="pk_erasure"),
        sa.CheckConstraint("kind in ('user', 'token')", name=op.f("ck_erasure_kind")),
        sa.CheckConstraint(
            "octet_length(subject_hash) = 32 and octet_length(key_check) = 16",
            name=op.f("ck_erasure_hashes"),
        ),
        comment="Who was erased, by keyed hash: later runs suppress them.  Append-only.",
    )


def _create_erasure_key() -> None:
    op.create_table(
        "erasure_key",
        sa.Column(
            "partner_id",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="Kaltura account (partner).",
        ),
        sa.Column(
            "key",
            sa.Text(),
            nullable=False,
            comment="Secret of the account's pseudonyms and of its list of the erased.",
        ),
        sa.Column(
            "made_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
            comment="When it was made.",
        ),
        sa.PrimaryKeyConstraint("partner_id", name="pk_erasure_key"),
        sa.CheckConstraint("length(key) >= 32", name=op.f("ck_erasure_key_length")),
        comment="Keys of erasures that were made without ETL_ERASURE_KEY; at most one an account.",
    )


def _create_pruning() -> None:
    op.create_table(
        "pruning",
        sa.Column(
            "pruning_id",
            sa.BigInteger(),
            sa.Identity(),
            nullable=False,
            comment="Number of the pruning.",
        ),
        sa.Column("partner_id", sa.Integer(), nullable=False, comment="Kaltura account (partner)."),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="What was deleted: pages, rejected (rows) or versions.",
        ),
        sa.Column(
            "horizon",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Older was deleted: runs that began before, versions that were valid until "
            "before.",
        ),
        sa.Column(
            "pruned_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
            comment="When it was done.",
        ),
        sa.Column("deleted", sa.BigInteger(), nullable=False, comment="Rows deleted."),
        sa.Column("program_version", sa.Text(), nullable=False, comment="Version of the program."),
        sa.PrimaryKeyConstraint("pruning_id", name="pk_pruning"),
        sa.CheckConstraint(
            "kind in ('pages', 'rejected', 'versions')", name=op.f("ck_pruning_kind")
        ),
        comment="What kaltura-etl prune deleted; the newest horizon of a kind counts.  "
        "Append-only.",
    )
