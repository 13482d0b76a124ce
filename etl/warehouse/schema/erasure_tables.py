"""The tables of erasure and pruning."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from etl.warehouse.schema.columns import column, one_of, time

ERASED_KINDS: Final = ("user", "token")
PRUNED_KINDS: Final = ("pages", "rejected", "versions")


def erasure_table(metadata: MetaData) -> Table:
    return Table(
        "erasure",
        metadata,
        Column(
            "erasure_id",
            BigInteger(),
            Identity(),
            nullable=False,
            comment="Number of the erasure.",
        ),
        column("partner_id", Integer(), "Kaltura account (partner)."),
        column("kind", Text(), "What was erased: user or token."),
        column("subject_hash", LargeBinary(), "Keyed hash of the user's or the token's id."),
        column("key_check", LargeBinary(), "Identifies the key of the hash without revealing it."),
        column("erased_at", time(), "When it was done.", default="clock_timestamp()"),
        column("versions", BigInteger(), "Versions in which a value was replaced."),
        column("staged", BigInteger(), "Rows of staging in which a value was replaced."),
        column("rejected", BigInteger(), "Rejected rows whose payload was replaced."),
        column("program_version", Text(), "Version of the program."),
        PrimaryKeyConstraint("erasure_id"),
        one_of("kind", ERASED_KINDS),
        CheckConstraint(
            "octet_length(subject_hash) = 32 and octet_length(key_check) = 16", name="hashes"
        ),
        comment="Erased subjects, by keyed hash: later runs suppress them.  Append-only.",
    )


def erasure_key_table(metadata: MetaData) -> Table:
    return Table(
        "erasure_key",
        metadata,
        Column(
            "partner_id",
            Integer(),
            autoincrement=False,
            nullable=False,
            comment="Kaltura account (partner).",
        ),
        column("key", Text(), "Secret of the account's pseudonyms and of its subject hashes."),
        column("made_at", time(), "When it was made.", default="clock_timestamp()"),
        PrimaryKeyConstraint("partner_id"),
        CheckConstraint("length(key) >= 32", name="length"),
        comment="Keys of erasures made without ETL_ERASURE_KEY; at most one per account.",
    )


def pruning_table(metadata: MetaData) -> Table:
    return Table(
        "pruning",
        metadata,
        Column(
            "pruning_id",
            BigInteger(),
            Identity(),
            nullable=False,
            comment="Number of the pruning.",
        ),
        column("partner_id", Integer(), "Kaltura account (partner)."),
        column("kind", Text(), "What was deleted: pages, rejected (rows) or versions."),
        column(
            "horizon",
            time(),
            "Deleted were runs that started, or versions whose validity ended, before this.",
        ),
        column("pruned_at", time(), "When it was done.", default="clock_timestamp()"),
        column("deleted", BigInteger(), "Rows deleted."),
        column("program_version", Text(), "Version of the program."),
        PrimaryKeyConstraint("pruning_id"),
        one_of("kind", PRUNED_KINDS),
        comment="What kaltura-etl prune deleted; the newest horizon of a kind counts.  "
        "Append-only.",
    )
