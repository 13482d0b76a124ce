"""What a run came to: refused, skipped and dry_run are statuses; the age of its oldest page."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.migration import enter_schema, install_view, require_force
from etl.warehouse.schema.views import version_comments

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OLD_STATUSES: Final = ("running", "succeeded", "failed", "abandoned")
STATUSES: Final = (
    *("running", "succeeded", "refused", "failed", "abandoned", "skipped", "dry_run"),
)
FRESHNESS: Final = (
    *("sync_run_state", "sync_tolerated_holes", "sync_run_is_complete"),
    "sync_freshness",
)
"""With the functions that it uses, which a schema made by an earlier version may lack."""
VIEWS: Final = (
    *FRESHNESS,
    # The function is read by the views WITH_ALL_COLUMNS; the others are here for their comments.
    "upload_token_status_name",
    "kaltura_time_zone",
    "upload_token_status_moment",
    "stuck_upload",
)
FRESHNESS_BEFORE: Final = {
    "running, succeeded, refused, failed or abandoned": "running, succeeded, failed or abandoned",
    "run.status not in ('dry_run', 'skipped')": "run.error_kind is distinct from 'dry_run'",
}
"""The lines of the view that this revision changed, and what they were."""
WITH_ALL_COLUMNS: Final = ("upload_token_history", "upload_token_snapshot_dbt")
COMMENTS: Final = {
    "erasure": "Erased subjects, by keyed hash: later runs suppress them.  Append-only.",
    "erasure.key_check": "Identifies the key of the hash without revealing it.",
    "erasure_key": "Keys of erasures made without ETL_ERASURE_KEY; at most one per account.",
    "erasure_key.key": "Secret of the account's pseudonyms and of its subject hashes.",
    "pruning.horizon": (
        "Deleted were runs that started, or versions whose validity ended, before this."
    ),
    "sync_page": "One row per page read; the spans of a run add up to its coverage.  Pruned.",
    "sync_page.page_index": "Requested pageIndex, from 1.",
    "sync_page.page_size": "Requested pageSize.",
    "sync_page.span": (
        "Seconds of createdAt in which the page shows every listed token; NULL if none."
    ),
    "sync_page.total_count": "totalCount of the reply: a hint.",
    "sync_run": "The ledger: one row per run.",
    "sync_run.heartbeat_at": "Last heartbeat of the run.",
    "sync_run.host": "Host name of its machine.",
    "sync_run.pid": "Process id on that host.",
    "sync_run.published_at": "Publication timestamp of its versions.",
    "sync_run.range_to": "Backfill: last createdAt wanted, inclusive.",
    "sync_run.resumed_from": "The run whose walk it resumed.",
    "sync_run.total_count_first": "First totalCount received: a hint.",
    "sync_run.total_count_last": "Last totalCount received: a hint.",
    "upload_token": "Upload tokens: one row per token ever seen, its latest version.",
    "upload_token.absence_confirmed_at": "When absent: the token was no longer listed then.",
    "upload_token.last_listed_at": (
        "When absent: the token was still listed then, and became absent later."
    ),
    "upload_token.valid_from": "Publication timestamp: published_at of the run run_id.",
    "upload_token.version": "1, 2, ... without gaps, per token.",
    "upload_token_staging.from_lookup": "Whether it is from a lookup by id.",
    "upload_token_superseded.absence_confirmed_at": (
        "When absent: the token was no longer listed then."
    ),
    "upload_token_superseded.last_listed_at": (
        "When absent: the token was still listed then, and became absent later."
    ),
    "upload_token_superseded.valid_from": "Publication timestamp: published_at of the run run_id.",
    "upload_token_superseded.valid_to": "When the next version was published; exclusive.",
    "upload_token_superseded.version": "1, 2, ... without gaps, per token.",
}
"""Comments of tables and columns in plainer words; ``table`` or ``table.column``."""


def upgrade() -> None:
    enter_schema()
    op.add_column(
        "sync_run",
        sa.Column(
            "oldest_page_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the oldest reply of its walk was requested: the age of what it "
            "published.  NULL for runs of program versions that did not record it.",
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
        "delete from upload_token_staging where (partner_id, walk_id) in "
        "(select partner_id, walk_id from sync_run where status in ('refused', 'dry_run'))"
    )
    _comment(STATUSES)
    # With the columns that revision 0002 gave them: the views that read them stay as they are.
    for name in VIEWS:
        install_view(name)
    _comment_tables()


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
    for name in FRESHNESS:
        install_view(name, as_it_was=FRESHNESS_BEFORE if name == "sync_freshness" else None)
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


def _comment_tables() -> None:
    for name, words in COMMENTS.items():
        table, _, column = name.partition(".")
        if column:
            op.alter_column(table, column, comment=words)
        else:
            op.create_table_comment(table, words)
    like = version_comments()
    for name in WITH_ALL_COLUMNS:
        install_view(name, like=like)
