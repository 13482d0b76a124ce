"""The tables of upload tokens: their versions, statuses, and what open walks observed."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from etl.warehouse.schema.columns import PERSISTENCE, bytewise, column, one_of, time

CHANGE_KINDS: Final = ("first_seen", "changed", "absent", "relisted")
STAGED_KINDS: Final = ("present", "missing", "absent")
MARKED: Final = (
    "starts_with(user_id, 'erased:') or starts_with(file_name, 'erased:') or extra ? 'erased'"
)
"""Which versions contain a pseudonym (or look so): the condition of two indexes, verbatim."""
MANY_RANGES: Final = "timestamptz_minmax_multi_ops"
"""A few rows of another time do not make a block's range wide."""
BLOCKS: Final = {"pages_per_range": 16, "autosummarize": "on"}
"""Blocks of about 500 versions, summed up as they fill."""
FULL_AT: Final = {"fillfactor": 90}
"""With room for a change or two, they stay in their block: one block is written instead of two, and
tokens stay in the order of their creation, in which they are read."""
UNCOMPRESSED: Final = "external"
"""To compress long lists would cost a first load more than all else that it does for them."""


def upload_token_table(metadata: MetaData) -> Table:
    table = Table(
        "upload_token",
        metadata,
        *_version_columns(),
        *_digest_columns(),
        _first_happened_column(),
        column(
            "first_closed_at",
            time(),
            "The least updated_at of its versions with status CLOSED; NULL: none, or not known.",
            null=True,
        ),
        *_status_since_columns(),
        column(
            "earlier_stays",
            ARRAY(Double()),
            "Of a token whose status changed, its stays in a status that are over, four numbers "
            "each: code of the status (32768: not listed, 32769: unknown), seconds at least (-1: "
            "passed unseen), seconds at most, estimated seconds at most; of a token with many, "
            "summed up by status now and then.  Query upload_status_duration.",
            null=True,
        ),
        column(
            "went_back",
            Boolean(),
            "Whether it may have been in a status twice, or came to one that is not documented; "
            "NULL: no.",
            null=True,
        ),
        PrimaryKeyConstraint("partner_id", "token_id"),
        *_version_checks(),
        postgresql_with=FULL_AT,
        comment="Upload tokens: one row per token ever seen, its latest version.",
    )
    # What a span of the list, and of the list of open tokens, should show.
    Index(
        "ix_upload_token_listed",
        table.c.partner_id,
        table.c.created_at,
        postgresql_where=text("is_listed"),
    )
    Index(
        "ix_upload_token_open_created",
        table.c.partner_id,
        table.c.created_at,
        postgresql_where=text("status in (0, 1, 2) and is_listed"),
    )
    # The others: with those listed, all.
    Index(
        "ix_upload_token_gone_created",
        table.c.partner_id,
        table.c.created_at,
        postgresql_where=text("not is_listed"),
    )
    Index("ix_upload_token_user", table.c.user_id, table.c.partner_id)
    # Tokens whose stays in a status have to be summed up; they are few.
    Index(
        "ix_upload_token_went_back",
        table.c.partner_id,
        table.c.created_at,
        postgresql_where=text("went_back"),
    )
    return table


def upload_token_superseded_table(metadata: MetaData) -> Table:
    table = Table(
        "upload_token_superseded",
        metadata,
        *_version_columns(),
        column("valid_to", time(), "When the next version was published; exclusive."),
        column("superseded_by_run_id", BigInteger(), "The run that published the next version."),
        _first_happened_column(),
        *_status_since_columns(),
        PrimaryKeyConstraint("partner_id", "token_id", "version"),
        *_version_checks(),
        CheckConstraint("valid_to > valid_from and isfinite(valid_to)", name="valid_to"),
        comment="Earlier versions of upload tokens; append-only.",
    )
    # The state at a moment: few pairs of timestamps, so that it is small, and it grows at its end.
    Index("ix_upload_token_superseded_valid", table.c.valid_to, table.c.valid_from)
    # The few that first_closed_at does not tell.
    Index(
        "ix_upload_token_superseded_closed_undated",
        table.c.partner_id,
        table.c.token_id,
        postgresql_where=text("status = 3 and updated_at is null"),
    )
    return table


def status_moment_log_table(metadata: MetaData) -> Table:
    table = Table(
        "upload_token_status_moment_log",
        metadata,
        column("partner_id", Integer(), "Kaltura account (partner)."),
        column("token_id", bytewise(), "Kaltura's id of the token, bytewise."),
        Column(
            "version",
            Integer(),
            nullable=False,
            autoincrement=False,
            comment="The version that brought the change: 2 or higher.",
        ),
        column(
            "from_status",
            Text(),
            "Name of the status before; NOT_LISTED after an absence; NULL: not known.",
            null=True,
        ),
        column("to_status", Text(), "Name of the new status; NOT_LISTED when it disappeared."),
        column(
            "from_status_code", SmallInteger(), "Code of from_status, if it has one.", null=True
        ),
        column("to_status_code", SmallInteger(), "Code of to_status, if it has one.", null=True),
        column("change_kind", Text(), "changed, absent or relisted."),
        column(
            "happened_at",
            time(),
            "Best estimate of when it changed: between the next two, and not before "
            "from_happened_at if that leaves any.",
        ),
        column(
            "happened_after",
            time(),
            "Not before this: when the last published walk that saw the old state began.",
        ),
        column(
            "happened_before",
            time(),
            "Not after this: when the reply that showed the new state had arrived.",
        ),
        column(
            "from_happened_at",
            time(),
            "happened_at of the change before, or of the first sighting; NULL: not known.",
            null=True,
        ),
        column("valid_from", time(), "Publication timestamp: published_at of the run run_id."),
        column("run_id", BigInteger(), "The run that published it."),
        column(
            "from_version",
            Integer(),
            "The version that brought the status before: 1 is the first sighting; NULL: not known.",
            null=True,
        ),
        column(
            "from_happened_after",
            time(),
            "happened_after of the change before, or of the first sighting; NULL: not known.",
            null=True,
        ),
        column(
            "from_happened_before",
            time(),
            "happened_before of the change before, or of the first sighting; NULL: not known.",
            null=True,
        ),
        column("created_at", time(), "When Kaltura made the token; whole seconds.", null=True),
        PrimaryKeyConstraint("partner_id", "token_id", "version"),
        CheckConstraint("version > 1", name="version"),
        CheckConstraint(
            "happened_after <= happened_at and happened_at <= happened_before", name="moments"
        ),
        comment="Changes of status or presence as published; append-only.  Query "
        "upload_token_status_history, which has the first sightings too.",
    )
    # It grows at its end, by publication: blocks tell what they hold, and cost nothing to write.
    Index(
        "ix_upload_token_status_moment_log_published",
        *(table.c[name] for name in ("valid_from", "run_id", "happened_at")),
        postgresql_using="brin",
        postgresql_ops={"happened_at": MANY_RANGES},
        postgresql_with=BLOCKS,
    )
    # Most statuses are changed within days of the creation.
    Index(
        "ix_upload_token_status_moment_log_created",
        table.c.created_at,
        postgresql_using="brin",
        postgresql_ops={"created_at": MANY_RANGES},
        postgresql_with=BLOCKS,
    )
    return table


def status_count_log_table(metadata: MetaData) -> Table:
    return Table(
        "upload_token_status_count_log",
        metadata,
        column("partner_id", Integer(), "Kaltura account (partner)."),
        column("run_id", BigInteger(), "The run that published it."),
        column(
            "quarter_hour",
            time(),
            "Beginning of the quarter of an hour in which it happened; two days before the "
            "account's first publication for all that happened earlier.",
        ),
        column(
            "status",
            Text(),
            "Name of the status, UNKNOWN_<code> or UNKNOWN; NOT_LISTED for those no longer listed.",
        ),
        column(
            "status_code",
            SmallInteger(),
            "Code of the status; NULL for NOT_LISTED and UNKNOWN.",
            null=True,
        ),
        column("tokens", Integer(), "Tokens that came into the status minus those that left it."),
        column("unseen_tokens", Integer(), "The same of those in PENDING that no run saw so."),
        PrimaryKeyConstraint("partner_id", "run_id", "quarter_hour", "status"),
        comment="How many tokens each publication brought into each status or took out of it; "
        "append-only.  Query upload_token_daily_status, which sums it up.",
    )


def bytes_arrival_log_table(metadata: MetaData) -> Table:
    return Table(
        "upload_bytes_arrival_log",
        metadata,
        column("partner_id", Integer(), "Kaltura account (partner)."),
        column("run_id", BigInteger(), "The run that published it."),
        column("is_long", Boolean(), "Whether more than a day is between earliest and latest."),
        column("utc_day", Date(), "Day, in UTC, of the earliest."),
        column(
            "earliest_quarters",
            ARRAY(Integer()),
            "For each number of bytes: not before this quarter of an hour, counted since "
            "1970-01-01 00:00 UTC, in which the last walk that saw the size before began.",
            storage=UNCOMPRESSED,
        ),
        column(
            "latest_quarters",
            ARRAY(Integer()),
            "Not after this quarter of an hour.",
            storage=UNCOMPRESSED,
        ),
        column(
            "best_quarters",
            ARRAY(Integer()),
            "Best estimate of the quarter of an hour in which they arrived.",
            storage=UNCOMPRESSED,
        ),
        column(
            "bytes",
            ARRAY(BigInteger()),
            "How many: those of each token that was first seen, and sums of what others grew by.",
            storage=UNCOMPRESSED,
        ),
        # A day of an account is found by it.
        PrimaryKeyConstraint("partner_id", "is_long", "utc_day", "run_id"),
        comment="Bytes that each publication showed to have arrived, and when; append-only.  Query "
        "upload_bytes_daily, which sums it up.",
    )


def upload_token_staging_table(metadata: MetaData) -> Table:
    table = Table(
        "upload_token_staging",
        metadata,
        column("walk_id", BigInteger(), "The walk that observed it: sync_run.walk_id."),
        column("partner_id", Integer(), "Kaltura account (partner)."),
        *_token_columns(),
        column("kind", Text(), "present, missing (not on its page) or absent (confirmed)."),
        column("from_lookup", Boolean(), "Whether it is from a lookup by id."),
        column("observed_at", time(), "When the reply arrived."),
        *_digest_columns(),
        one_of("kind", STAGED_KINDS),
        prefixes=["UNLOGGED"],
        info={PERSISTENCE: "unlogged"},
        comment="Observations of open walks that differ from upload_token.  Not for analysts.",
    )
    # What a walk has staged in the seconds of a batch, which must be staged again.
    Index(
        "ix_upload_token_staging_created",
        table.c.partner_id,
        table.c.walk_id,
        table.c.created_at,
    )
    return table


def upload_token_status_table(metadata: MetaData) -> Table:
    return Table(
        "upload_token_status",
        metadata,
        Column(
            "code",
            SmallInteger(),
            nullable=False,
            autoincrement=False,
            comment="Kaltura's code, as in upload_token.status.",
        ),
        column("name", Text(), "Kaltura's name of the code."),
        column(
            "outcome_group",
            Text(),
            "open, succeeded, failed or deleted: as upload_outcome calls what is in it for good, "
            "unless it was CLOSED before.",
        ),
        column("description", Text(), "What the status means."),
        PrimaryKeyConstraint("code"),
        UniqueConstraint("name"),
        one_of("outcome_group", ("open", "succeeded", "failed", "deleted")),
        comment="The statuses that an upload token can have.",
    )


def _token_columns() -> list[Column[Any]]:
    """The columns of ``etl.tokens.token.TOKEN_COLUMNS``, in that order."""
    return [
        column("token_id", bytewise(), "Kaltura's id of the token, bytewise."),
        column("user_id", Text(), "Kaltura user; once known, kept when sent empty.", null=True),
        column("status", SmallInteger(), "Code of upload_token_status, or unknown.", null=True),
        column("file_name", Text(), "Name of the file; NULL also if not valid UTF-8.", null=True),
        column("file_size_bytes", BigInteger(), "Size announced, in bytes.", null=True),
        column("uploaded_size_bytes", BigInteger(), "Bytes received so far.", null=True),
        column("created_at", time(), "When Kaltura made the token; whole seconds."),
        column("updated_at", time(), "When Kaltura last changed the token.", null=True),
        column("attached_object_type", Text(), "Kind of object it was used for.", null=True),
        column("attached_object_id", Text(), "Id of the object it was used for.", null=True),
        column(
            "auto_finalize",
            Boolean(),
            "Close when complete.  Volatile: refreshed with a version, never a reason for one.",
            null=True,
        ),
        column(
            "upload_url",
            Text(),
            "Where to upload.  Volatile: refreshed with a version, never a reason for one.",
            null=True,
        ),
        column("extra", JSONB(), "Keys of the reply that have no column here.", null=True),
    ]


def _version_columns() -> list[Column[Any]]:
    return [
        column("partner_id", Integer(), "Kaltura account (partner)."),
        *_token_columns(),
        column("is_listed", Boolean(), "Whether the service listed the token."),
        column("version", Integer(), "1, 2, ... without gaps, per token."),
        column("change_kind", Text(), "Why: first_seen, changed, absent or relisted."),
        column(
            "changed_columns",
            ARRAY(Text()),
            "Columns that differ from the version before.",
            null=True,
        ),
        column("valid_from", time(), "Publication timestamp: published_at of the run run_id."),
        column("observed_at", time(), "When the reply that showed this version arrived."),
        column(
            "last_listed_at",
            time(),
            "When absent: the token was still listed then, and became absent later.",
            null=True,
        ),
        column(
            "absence_confirmed_at",
            time(),
            "When absent: the token was no longer listed then.",
            null=True,
        ),
        column("run_id", BigInteger(), "The run that published this version."),
    ]


def _digest_columns() -> list[Column[Any]]:
    return [
        column(
            "digest",
            BigInteger(),
            "Digest of token_id and the compared columns but user_id; NULL: not made yet.",
            null=True,
        ),
        column("user_digest", BigInteger(), "Digest of user_id; NULL without one.", null=True),
    ]


def _first_happened_column() -> Column[Any]:
    # Kept, because row-level security lets no condition on an expression reach an index.
    return column(
        "first_happened_at",
        time(),
        "Of version 1: best estimate of when the token got the status in which it was first seen.",
        null=True,
    )


def _status_since_columns() -> list[Column[Any]]:
    """Of version 1 they follow from other columns, so that a first load need not write them."""
    unknown = "  NULL in version 1 (see first_happened_at), and if not known."
    return [
        column(
            "status_version",
            Integer(),
            "The version that brought the status or presence; 1: as first seen." + unknown,
            null=True,
        ),
        column(
            "status_happened_at",
            time(),
            "happened_at of that change, as in upload_token_status_history." + unknown,
            null=True,
        ),
        column(
            "status_happened_after",
            time(),
            "happened_after of that change." + unknown,
            null=True,
        ),
        column(
            "status_happened_before",
            time(),
            "happened_before of that change: it was seen by then." + unknown,
            null=True,
        ),
    ]


def _version_checks() -> list[CheckConstraint]:
    checks = {
        "created_at": "created_at >= '1990-01-01 00:00:00+00' "
        "and created_at < '2100-01-01 00:00:00+00'",
        "updated_at": "updated_at >= '1990-01-01 00:00:00+00' "
        "and updated_at < '2100-01-01 00:00:00+00'",
        "version": "version >= 1 and (version = 1) = (change_kind = 'first_seen')",
        "is_listed": "is_listed = (change_kind <> 'absent')",
        "absence": "(absence_confirmed_at is not null) = (not is_listed) "
        "and (is_listed or last_listed_at is not null)",
        "changed_columns": "change_kind <> 'changed' "
        "or coalesce(cardinality(changed_columns), 0) > 0",
        "valid_from": "isfinite(valid_from) and isfinite(observed_at)",
    }
    return [
        one_of("change_kind", CHANGE_KINDS),
        *(CheckConstraint(condition, name=name) for name, condition in checks.items()),
    ]


def index_history(table: Table) -> None:
    """What analysts ask of each of the two tables of versions."""
    name = table.name
    # The time comes first: who has one account names none.
    Index(f"ix_{name}_valid_from", table.c.valid_from, table.c.partner_id, table.c.run_id)
    # Tokens are written in the order of their creation, so blocks hold what happened together.
    Index(
        f"ix_{name}_first_happened",
        table.c.first_happened_at,
        postgresql_using="brin",
        postgresql_ops={"first_happened_at": MANY_RANGES},
        postgresql_with=BLOCKS,
        postgresql_where=text("version = 1"),
    )


def index_marked(table: Table) -> None:
    # Runs that suppress erased users look these tokens up; they are few.
    Index(
        f"ix_{table.name}_marked",
        table.c.partner_id,
        table.c.token_id,
        postgresql_where=text(MARKED),
    )
