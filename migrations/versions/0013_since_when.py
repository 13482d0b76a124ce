"""Each version tells since when it has its status, and each change the interval of the one before.

The moments of old warehouses are filled from their versions, and put in order.  What versions that
were pruned would have told stays NULL.  Columns and indexes come first, each for itself, so that a
migration that was interrupted can be started again.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.filling import moment_fillings
from etl.warehouse.schema.migration import (
    create_index,
    drop_index,
    enter_schema,
    hold_publications,
    install_view,
)

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

VERSIONS: Final = ("upload_token", "upload_token_superseded")
LOG: Final = "upload_token_status_moment_log"
UNKNOWN: Final = "  NULL in version 1 (see first_happened_at), and if not known."
STATUS_SINCE: Final = (
    (
        "status_version",
        "integer",
        "The version that brought the status or presence; 1: as first seen." + UNKNOWN,
    ),
    (
        "status_happened_at",
        "timestamptz",
        "happened_at of that change, as in upload_token_status_history." + UNKNOWN,
    ),
    ("status_happened_after", "timestamptz", "happened_after of that change." + UNKNOWN),
    (
        "status_happened_before",
        "timestamptz",
        "happened_before of that change: it was seen by then." + UNKNOWN,
    ),
)
OF_THE_LOG: Final = (
    (
        "from_version",
        "integer",
        "The version that brought the status before: 1 is the first sighting; NULL: not known.",
    ),
    *[
        (
            f"from_happened_{name}",
            "timestamptz",
            f"happened_{name} of the change before, or of the first sighting; NULL: not known.",
        )
        for name in ("after", "before")
    ],
    ("created_at", "timestamptz", "When Kaltura made the token; whole seconds."),
)
COLUMNS: Final = (
    *[(table, *column) for table in VERSIONS for column in STATUS_SINCE],
    *[(LOG, *column) for column in OF_THE_LOG],
)
"""Table, name, type, comment."""
HAPPENED_AT: Final = (
    "Best estimate of when it changed: between the next two, and not before from_happened_at if "
    "that leaves any."
)
HAPPENED_AT_BEFORE: Final = "Best estimate of when it changed; between the next two."
INDEXES: Final[tuple[tuple[str, list[str], str | None, dict[str, Any]], ...]] = (
    (
        f"ix_{LOG}_created",
        ["created_at"],
        None,
        {
            "postgresql_using": "brin",
            "postgresql_ops": {"created_at": "timestamptz_minmax_multi_ops"},
            "postgresql_with": {"pages_per_range": 16, "autosummarize": "on"},
        },
    ),
    (
        f"ix_{LOG}_back",
        ["partner_id", "token_id"],
        "(change_kind = 'absent' or (from_status_code >= 0 and to_status_code > from_status_code)) "
        "is not true",
        {},
    ),
)
"""Name, columns, condition, options."""
VIEWS: Final = ("upload_token_status_moment", "upload_token_status_history")
"""In the order in which they build on each other.  Those of durations come later."""


def upgrade() -> None:
    enter_schema()
    for table, name, kind, words in COLUMNS:
        op.execute(f"alter table {table} add column if not exists {name} {kind}")
        op.alter_column(table, name, comment=words)
    op.alter_column(LOG, "happened_at", comment=HAPPENED_AT)
    for name, columns, where, options in INDEXES:
        create_index(name, LOG, columns, where=where, **options)
    enter_schema()
    hold_publications()
    # A restored warehouse may have no statistics, and the joins of the filling are large.
    op.execute("analyze upload_token, upload_token_superseded, sync_run, unobserved_token")
    for statement in moment_fillings():
        op.execute(sa.text(statement.replace(":", r"\:")))
    for name in VIEWS:
        install_view(name)


def downgrade() -> None:
    for name, *_ in INDEXES:
        drop_index(name, LOG)
    enter_schema()
    op.alter_column(LOG, "happened_at", comment=HAPPENED_AT_BEFORE)
    for table, name, *_ in COLUMNS:
        op.drop_column(table, name)
