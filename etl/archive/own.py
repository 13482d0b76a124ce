"""Whether an archive is that of this warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.errors import ConfigurationError, DataRefused
from etl.warehouse.ledger.replayed import entry_of

if TYPE_CHECKING:
    from etl.archive.reader import Archive
    from etl.warehouse.schema.database import Database


def require_own(archive: Archive, database: Database, partner_id: int) -> None:
    """Raise ConfigurationError unless the newest archived run was published by this warehouse.

    An archive without published runs of the account passes; a damaged manifest says nothing.
    """
    for run_id in reversed(archive.run_ids(partner_id)):
        try:
            manifest = archive.manifest(partner_id, run_id)
        except DataRefused:
            continue
        if manifest is None:
            continue
        entry = entry_of(database, run_id)
        if entry is None or entry.published_at != manifest.published_at:
            raise ConfigurationError(
                f"The archive {archive.address} has a run {run_id} of partner {partner_id} that "
                "this warehouse did not publish: it is of another warehouse, or of a later state "
                "of this one. Name the archive of this warehouse (ETL_ARCHIVE), or none.",
                archive=archive.address,
            )
        return
