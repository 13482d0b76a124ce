"""Erasure of an account that leaves: its folder in the archive, then its rows in the warehouse."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl.archive.layout import partner_folder, run_folder
from etl.archive.own import require_own
from etl.archive.reader import Archive
from etl.errors import EtlError
from etl.warehouse.privacy.account import (
    count_account,
    erase_account_rows,
    privileges_to_erase,
)
from etl.warehouse.privacy.hold import Hold, take_hold

if TYPE_CHECKING:
    from etl.archive.stores import Store
    from etl.process.stop import Stop
    from etl.warehouse.schema.database import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedAccount:
    """What the erasure of an account deleted, or would delete."""

    run_id: int | None
    """The row of the ledger that remains as its record; None if nothing was done."""
    tables: dict[str, int]
    """Rows by table."""
    archive: str | None
    """Its address; None: no archive was named."""
    archived_runs: int | None
    """Folders of runs in that archive."""


def erase_account(
    database: Database,
    store: Store | None,
    *,
    partner_id: int,
    lease_seconds: float,
    apply: bool,
    stop: Stop,
) -> ErasedAccount:
    """Delete everything of the account, or count it; ``store`` is the archive, None: there is none.

    The archive goes first: where it cannot be deleted, the warehouse is still whole.  After an
    interruption the account has no runs until the next call has finished it.

    Raises:
        ConfigurationError: the archive is of another warehouse.
        ArchiveUnavailable, CredentialsRefused: the archive cannot be deleted, or the role may not.
        LeaseHeld: a run of the account is running.
        Interrupted: between two steps.
    """
    archive = None if store is None else Archive(store)
    run_ids = [] if archive is None else archive.run_ids(partner_id)
    if archive is not None:
        require_own(archive, database, partner_id)
    tables = count_account(database, partner_id)
    run_id = None
    if apply and (run_ids or any(tables.values())):
        hold = take_hold(
            database,
            partner_id,
            "account",
            lease_seconds=lease_seconds,
            privileges=privileges_to_erase(database.tables),
        )
        if store is not None:
            # A run that ended just before may have added one.
            run_ids = Archive(store).run_ids(partner_id)
            _delete_archive(hold, store, run_ids, stop)
        tables = erase_account_rows(hold, stop=stop)
        run_id = hold.run_id
        log.info("account erased", extra={"partner_id": partner_id, "run_id": run_id})
    return ErasedAccount(
        run_id=run_id,
        tables=tables,
        archive=None if archive is None else archive.address,
        archived_runs=None if archive is None else len(run_ids),
    )


def _delete_archive(hold: Hold, store: Store, run_ids: list[int], stop: Stop) -> None:
    """Delete the account's folder, the newest run first: a manifest may name earlier files."""
    deleted = False
    try:
        for run_id in reversed(run_ids):
            stop.check()
            hold.beat()
            store.delete(run_folder(hold.partner_id, run_id))
            deleted = True
        store.delete(partner_folder(hold.partner_id))
    except EtlError:
        if not deleted and not hold.erased_rows:
            # Nothing is gone yet: the account may go on.
            hold.release()
        raise
