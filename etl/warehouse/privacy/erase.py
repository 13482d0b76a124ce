"""Erasure: pseudonyms in place of personal data, in all tables, in one transaction.

The subject of an erasure is a user or a token.  The *affected tokens* are the token, or every token
that belonged to the user in any version, in an open walk's staging or in a rejected row.  In all
their versions the file name and ``extra`` are replaced, regardless of the owner at the time: a name
stays with a token that changes owners, and its origin is unknown.  ``user_id`` is replaced where it
is the user's; of an erased token, always.  Payloads of rejected rows are replaced as a whole.

Equal values get equal pseudonyms and different ones different, so every version still differs from
the one before in the columns that it names.  No run can be active meanwhile: the transaction holds
the partner's lease in a row of the ledger that is never committed.

The key is the setting ETL_ERASURE_KEY.  Where it is not set, the first erasure of an account makes
one, in its transaction, and the warehouse keeps it (table ``erasure_key``).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from psycopg import sql

from etl.errors import ConfigurationError, EtlError, UsageError
from etl.tokens.pseudonyms import ERASED_PAYLOAD_BYTES, Pseudonyms, Suppression
from etl.warehouse.engine import (
    driver_connection,
    require_row_count,
    transaction,
)
from etl.warehouse.ledger.attempts import insert_attempt
from etl.warehouse.ledger.lease import abandon_dead_runs, is_another_run, lease_held, take_lease
from etl.warehouse.privacy.hold import ADVICE, Hold
from etl.warehouse.privacy.rights import require_rights
from etl.warehouse.privacy.subject import VERSION_TABLES, Erased, Eraser, Subject, listed_subjects
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.erasure_tables import ERASED_KINDS
from etl.warehouse.schema.token_tables import MARKED

LOG = logging.getLogger(__name__)
STATEMENT_SECONDS: Final = 3_600
ROWS_AT_ONCE: Final = 1_000
ERASER_PRIVILEGES: Final = [
    *[
        (table, privilege)
        for table in (*VERSION_TABLES, "rejected_row")
        for privilege in ("SELECT", "UPDATE")
    ],
    *[("sync_run", privilege) for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE")],
    ("erasure", "SELECT"),
    ("erasure", "INSERT"),
    ("erasure_key", "SELECT"),
    ("erasure_key", "INSERT"),
]


def erase(
    database: Database,
    *,
    partner_id: int,
    key: str | None,
    subjects: Sequence[Subject],
    again: bool = False,
    lease_seconds: float,
    apply: bool,
    hold: Hold | None = None,
) -> list[Erased]:
    """Erase the subjects, or count what would be replaced.  All or nothing.

    With ``again``, also the erased subjects whose data is stored nevertheless, as after restoring
    an older backup.  ``hold`` is the account's lease where the caller has it; it keeps it.

    ``key`` is the setting; None: the warehouse's, which is made if there is none.  For a count, any
    key will do.

    Raises:
        UsageError: an invalid subject.
        ConfigurationError: the key is not that of earlier erasures, or it is missing.
        CredentialsRefused: the role may not change earlier versions.
        LeaseHeld: a run of the partner is running.
    """
    read_only: dict[str, Any] = {} if apply else {"transaction_read_only": "on"}
    lease: int | None = None
    try:
        with transaction(
            database.engine,
            durable=apply,
            statement_seconds=STATEMENT_SECONDS,
            **read_only,
        ) as connection:
            # First, so that no other process makes a key meanwhile.
            if apply:
                require_rights(
                    connection, database, ERASER_PRIVILEGES, to="rewrite history", advice=ADVICE
                )
                if hold is None:
                    lease = _take_lease(connection, database, partner_id, lease_seconds)
                else:
                    hold.fence(connection)
            known = _known_pseudonyms(connection, database, partner_id, key)
            new_key = secrets.token_hex(32)
            pseudonyms = known or Pseudonyms(new_key, partner_id)
            who = list(subjects)
            _refuse_pseudonyms(who, pseudonyms)
            if again:
                who += listed_subjects(connection, database, partner_id, pseudonyms)
            erased = [
                Eraser(connection, database, partner_id, pseudonyms, each, apply=apply).run()
                for each in dict.fromkeys(who)
            ]
            if apply:
                if known is None and erased:
                    connection.execute(
                        sa.insert(database.tables.erasure_key).values(
                            partner_id=partner_id, key=new_key
                        )
                    )
                _renew_statistics(connection, database)
                _give_back(connection, database, lease)
            elif known is None:
                for each in erased:
                    each.subject_hash = None
    except EtlError as error:
        # Only before the lease is taken do these mean that another process holds it.
        if hold is None and lease is None and is_another_run(error):
            raise lease_held(database, partner_id) from None
        raise
    if apply and known is None and erased:
        LOG.info(
            "ETL_ERASURE_KEY is not set: the warehouse keeps a new key, in the table erasure_key",
            extra={"partner_id": partner_id},
        )
    return erased


def _refuse_pseudonyms(subjects: Sequence[Subject], pseudonyms: Pseudonyms) -> None:
    for subject in subjects:
        if pseudonyms.is_pseudonym(subject.subject_id):
            raise UsageError(f"--{subject.kind}-id is a pseudonym: it is already erased.")


@dataclass(frozen=True, slots=True)
class Erasures:
    """What was erased of an account: hashes of ids, and the tokens that have a pseudonym."""

    pseudonyms: Pseudonyms
    users: frozenset[bytes]
    tokens: frozenset[bytes]
    marked: frozenset[str]

    def suppression(self) -> Suppression:
        return Suppression(
            self.pseudonyms, users=self.users, tokens=self.tokens, marked=self.marked
        )


def load_suppression(database: Database, partner_id: int, key: str | None) -> Suppression | None:
    """What a run must replace as soon as it has read it; None if nothing was erased.

    Raises what ``load_erasures`` raises.
    """
    erasures = load_erasures(database, partner_id, key)
    return None if erasures is None else erasures.suppression()


def load_erasures(database: Database, partner_id: int, key: str | None) -> Erasures | None:
    """What was erased of an account; None if nothing was.

    Call it while the run holds the lease, which excludes erasures.  ``key`` is the setting; None:
    the warehouse's.  Raises ConfigurationError without the key of the erasures, or with another.
    """
    erasure = database.tables.erasure
    with transaction(database.engine, statement_seconds=STATEMENT_SECONDS) as connection:
        listed = connection.execute(
            sa.select(erasure.c.kind, erasure.c.subject_hash)
            .where(erasure.c.partner_id == partner_id)
            .distinct()
        ).all()
        pseudonyms = _known_pseudonyms(connection, database, partner_id, key)
        if not listed or pseudonyms is None:
            return None
        hashes: dict[str, set[bytes]] = {kind: set() for kind in ERASED_KINDS}
        for kind, subject_hash in listed:
            hashes[kind].add(bytes(subject_hash))
        return Erasures(
            pseudonyms,
            users=frozenset(hashes["user"]),
            tokens=frozenset(hashes["token"]),
            marked=frozenset(_marked(connection, database, partner_id, pseudonyms)),
        )


def _marked(
    connection: sa.Connection, database: Database, partner_id: int, pseudonyms: Pseudonyms
) -> set[str]:
    """The ids of tokens that have a pseudonym in any version, in staging or in a rejected row."""
    tables = database.tables
    found: set[str] = set()
    for name in VERSION_TABLES:
        table = tables.metadata.tables[f"{database.schema}.{name}"]
        rows = connection.execute(
            sa.select(
                table.c.token_id,
                table.c.user_id,
                table.c.file_name,
                sa.cast(table.c.extra, sa.Text),
            ).where(table.c.partner_id == partner_id, sa.text(MARKED)),
            execution_options={"yield_per": ROWS_AT_ONCE},
        )
        for token_id, *values in rows:
            if token_id not in found and pseudonyms.is_marked(*values):
                found.add(token_id)
    rejected, sync_run = tables.rejected_row, tables.sync_run
    payloads = connection.execute(
        sa.select(rejected.c.token_id, rejected.c.payload)
        .join(sync_run, sync_run.c.run_id == rejected.c.run_id)
        .where(
            sync_run.c.partner_id == partner_id,
            rejected.c.token_id.is_not(None),
            sa.func.octet_length(rejected.c.payload) == ERASED_PAYLOAD_BYTES,
        )
    )
    found.update(
        token_id for token_id, payload in payloads if pseudonyms.is_erased_payload(bytes(payload))
    )
    return found


def _take_lease(
    connection: sa.Connection, database: Database, partner_id: int, lease_seconds: float
) -> int:
    """Hold the partner's lease until the transaction ends; returns the run_id of its row.

    A unique index allows one running run per partner: with an uncommitted row in it no run can
    start, and while a run is running this fails.
    """
    sync_run = database.tables.sync_run
    abandon_dead_runs(connection, sync_run, partner_id, lease_seconds)
    run_id = insert_attempt(connection, sync_run, partner_id=partner_id, mode="full")
    take_lease(connection, sync_run, run_id)
    return run_id


def _give_back(connection: sa.Connection, database: Database, lease: int | None) -> None:
    """Delete the row of ``_take_lease``; None: the caller of ``erase`` holds the lease."""
    if lease is not None:
        sync_run = database.tables.sync_run
        ended = connection.execute(sa.delete(sync_run).where(sync_run.c.run_id == lease))
        require_row_count(sync_run.name, changed=ended.rowcount, meant=1)


def _known_pseudonyms(
    connection: sa.Connection, database: Database, partner_id: int, key: str | None
) -> Pseudonyms | None:
    """Those of the setting's key, else of the key that the warehouse keeps; None without a key.

    Raises ConfigurationError if a subject was erased with a different key.
    """
    erasure, erasure_key = database.tables.erasure, database.tables.erasure_key
    kept: str | None = connection.scalar(
        sa.select(erasure_key.c.key).where(erasure_key.c.partner_id == partner_id)
    )
    used_key = kept if key is None else key
    pseudonyms = None if used_key is None else Pseudonyms(used_key, partner_id)
    checks = {
        bytes(each)
        for each in connection.scalars(
            sa.select(erasure.c.key_check).where(erasure.c.partner_id == partner_id).distinct()
        )
    }
    if checks <= ({pseudonyms.key_check()} if pseudonyms else set()):
        return pseudonyms
    erased_with = f"the key of the erasures of account {partner_id}"
    if key is not None:
        said = f"ETL_ERASURE_KEY is not {erased_with}: set that one"
        if kept is not None:
            said += ", or none if it is the one that the warehouse keeps (table erasure_key)"
    elif kept is not None:
        said = f"ETL_ERASURE_KEY is not set, and the key in table erasure_key is not {erased_with}"
    else:
        said = f"ETL_ERASURE_KEY is not set, and the warehouse does not keep {erased_with}: set it"
    raise ConfigurationError(
        f"{said}. Without it, erased data would be stored again.", setting="ETL_ERASURE_KEY"
    )


def _renew_statistics(connection: sa.Connection, database: Database) -> None:
    """Renew the planner's statistics, which contain frequent values verbatim."""
    driver = driver_connection(connection)
    for name in (*VERSION_TABLES, "rejected_row"):
        driver.execute(
            sql.SQL("analyze {}").format(sql.Identifier(database.schema, name)), prepare=False
        )
