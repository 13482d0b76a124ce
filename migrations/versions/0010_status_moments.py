"""Status moments as they were published, when a token was first closed, and indexes for analysts.

Revision 0013 fills the moments of old warehouses.  Columns and indexes come first, each for itself,
so that a migration that was interrupted can be started again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.migration import create_index, drop_index, enter_schema, install_view

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

VERSIONS: Final = ("upload_token", "upload_token_superseded")
LOG: Final = "upload_token_status_moment_log"
COLUMNS: Final = (
    *[
        (
            table,
            "first_happened_at",
            "Of version 1: best estimate of when the token got the status in which it was first "
            "seen.",
        )
        for table in VERSIONS
    ],
    (
        "upload_token",
        "first_closed_at",
        "The least updated_at of its versions with status CLOSED; NULL: none, or not known.",
    ),
)
MANY_RANGES: Final = "timestamptz_minmax_multi_ops"
BLOCKS: Final[dict[str, Any]] = {
    "postgresql_using": "brin",
    "postgresql_with": {"pages_per_range": 16, "autosummarize": "on"},
}
INDEXES: Final[tuple[tuple[str, str, list[str], str | None, dict[str, Any]], ...]] = (
    *[
        (f"ix_{table}_valid_from", table, ["valid_from", "partner_id", "run_id"], None, {})
        for table in VERSIONS
    ],
    *[
        (
            f"ix_{table}_first_happened",
            table,
            ["first_happened_at"],
            "version = 1",
            {"postgresql_ops": {"first_happened_at": MANY_RANGES}, **BLOCKS},
        )
        for table in VERSIONS
    ],
    (
        "ix_upload_token_gone_created",
        "upload_token",
        ["partner_id", "created_at"],
        "not is_listed",
        {},
    ),
    ("ix_upload_token_user", "upload_token", ["user_id", "partner_id"], None, {}),
    (
        "ix_upload_token_superseded_closed_undated",
        "upload_token_superseded",
        ["partner_id", "token_id"],
        "status = 3 and updated_at is null",
        {},
    ),
)
"""Name, table, columns, condition, options."""
VIEWS: Final = (
    "upload_token_status_moment",
    "upload_token_status_history",
    "upload_outcome",
    "upload_outcome_daily",
    "upload_user_summary",
    "stuck_upload",
)
"""In the order in which they build on each other."""
OUTCOME_BEFORE: Final = {
    "present.first_closed_at": "cast(null as timestamptz) as first_closed_at",
    "gone.first_closed_at": "cast(null as timestamptz) as first_closed_at",
    "select token.first_closed_at as first_at": "select least("
    "case when token.status = 3 then token.updated_at end, "
    "(select min(earlier.updated_at) from upload_token_superseded as earlier "
    "where earlier.partner_id = token.partner_id and earlier.token_id = token.token_id "
    "and earlier.status = 3)) as first_at",
}
HISTORY_BEFORE: Final = """
create or replace view upload_token_status_history with (security_invoker = true) as
select
    timed.partner_id, timed.token_id, timed.version, timed.from_status, timed.to_status,
    timed.from_status_code, timed.to_status_code, timed.change_kind, timed.happened_at,
    timed.happened_after, timed.happened_before, timed.time_in_from_status, timed.valid_from,
    timed.run_id, date_part('epoch', timed.time_in_from_status) as time_in_from_status_seconds
from (
    select
        moment.*,
        case
            when moment.version > 1 then (
                select moment.happened_at - before.happened_at
                from upload_token_status_moment as before
                where
                    before.partner_id = moment.partner_id
                    and before.token_id = moment.token_id
                    and before.version < moment.version
                order by before.version desc
                limit 1
            )
        end as time_in_from_status
    from upload_token_status_moment as moment
) as timed
"""


def upgrade() -> None:
    enter_schema()
    for table, name, words in COLUMNS:
        op.execute(f"alter table {table} add column if not exists {name} timestamptz")
        op.alter_column(table, name, comment=words)
    for name, table, columns, where, options in INDEXES:
        create_index(name, table, columns, where=where, **options)
    enter_schema()
    _create_log()
    install_view("upload_token_status_moment")
    for name in VIEWS:
        install_view(name)


def downgrade() -> None:
    """The views keep their columns; what they tell of older versions is derived again."""
    for name, table, *_ in INDEXES:
        drop_index(name, table)
    enter_schema()
    op.execute(HISTORY_BEFORE)
    install_view("upload_outcome", as_it_was=OUTCOME_BEFORE)
    op.drop_table(LOG)
    for table, name, _ in COLUMNS:
        op.drop_column(table, name)


def _create_log() -> None:
    op.create_table(
        LOG,
        sa.Column("partner_id", sa.Integer(), nullable=False, comment="Kaltura account (partner)."),
        sa.Column(
            "token_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="Kaltura's id of the token, bytewise.",
        ),
        sa.Column(
            "version",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="The version that brought the change: 2 or higher.",
        ),
        sa.Column(
            "from_status",
            sa.Text(),
            nullable=True,
            comment="Name of the status before; NOT_LISTED after an absence; NULL: not known.",
        ),
        sa.Column(
            "to_status",
            sa.Text(),
            nullable=False,
            comment="Name of the new status; NOT_LISTED when it disappeared.",
        ),
        sa.Column(
            "from_status_code",
            sa.SmallInteger(),
            nullable=True,
            comment="Code of from_status, if it has one.",
        ),
        sa.Column(
            "to_status_code",
            sa.SmallInteger(),
            nullable=True,
            comment="Code of to_status, if it has one.",
        ),
        sa.Column("change_kind", sa.Text(), nullable=False, comment="changed, absent or relisted."),
        _moment("happened_at", "Best estimate of when it changed; between the next two."),
        _moment(
            "happened_after",
            "Not before this: when the last published walk that saw the old state began.",
        ),
        _moment(
            "happened_before",
            "Not after this: when the reply that showed the new state had arrived.",
        ),
        _moment(
            "from_happened_at",
            "happened_at of the change before, or of the first sighting; NULL: not known.",
            null=True,
        ),
        _moment("valid_from", "Publication timestamp: published_at of the run run_id."),
        sa.Column("run_id", sa.BigInteger(), nullable=False, comment="The run that published it."),
        sa.PrimaryKeyConstraint("partner_id", "token_id", "version", name=f"pk_{LOG}"),
        sa.CheckConstraint("version > 1", name=op.f(f"ck_{LOG}_version")),
        sa.CheckConstraint(
            "happened_after <= happened_at and happened_at <= happened_before",
            name=op.f(f"ck_{LOG}_moments"),
        ),
        comment="Changes of status or presence as published; append-only.  Query "
        "upload_token_status_history, which has the first sightings too.",
    )
    op.create_index(
        f"ix_{LOG}_published",
        LOG,
        ["valid_from", "run_id", "happened_at"],
        postgresql_ops={"happened_at": MANY_RANGES},
        **BLOCKS,
    )


def _moment(name: str, words: str, *, null: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null, comment=words)
