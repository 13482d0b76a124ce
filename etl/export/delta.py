"""The history and its certificates in Delta tables, which Spark, Trino, DuckDB and others read.

    upload_token_history/    every version
    sync_run/                every published run; its coverage is the certificate of what it read

Both are partitioned by partner_id.  An account is replaced as a whole, in one commit per table: a
reader sees one publication or another, and an export that was interrupted has changed nothing,
because a file that no commit names is not a part of the table.  Which publication it is, is told in
transaction identifiers of the account, which a table keeps for ever.

An erasure rewrites the account, and deletes the files of its earlier commits at once: of that
account alone, because another warehouse may be writing another one's, which no commit names yet.
The log stays, so no value of a person gets into it: its statistics are numbers of rows only.

``deltalake`` commits the files, but does not write them: its writer needs memory that grows with
the account (570 MB for 6 million rows, and no signal is heard meanwhile).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from etl.archive.stores import LocalStore, open_store
from etl.errors import ArchiveUnavailable, ConfigurationError, EtlError, LeaseHeld, UsageError
from etl.export.parts import ParquetPart, arrow_schema, write_parts
from etl.resources import program_version
from etl.warehouse.read.extract import (
    Account,
    Column,
    Extract,
    Selection,
    extracting,
    target_locked,
)

with suppress(ImportError):  # an extra: require_libraries asks for it before this is used
    from deltalake import CommitProperties, DeltaTable, Transaction
    from deltalake import Schema as DeltaSchema
    from deltalake.exceptions import CommitFailedError
    from deltalake.transaction import AddAction

if TYPE_CHECKING:
    from etl.process.progress import Progress
    from etl.process.stop import Stop

HISTORY: Final = "upload_token_history"
CERTIFICATES: Final = "sync_run"
TABLES: Final = (HISTORY, CERTIFICATES)
"""In the order of their commits: a certificate never promises what is not there yet."""
DESCRIPTION: Final = "Kept by kaltura-etl export, account by account."
"""By which a table is known as ours."""
COMMITS_MAX: Final = 10
"""Attempts at a commit while others commit to the same table."""
KEEP_HOURS: Final = 168
"""For so long the files of earlier commits stay, for those who read them still."""
_PARTITION: Final = "partner_id"
_PROPERTIES: Final = {
    # For whoever rewrites files, as OPTIMIZE does: no names of users and files in the log.
    "delta.dataSkippingStatsColumns": "run_id",
}
_FOLDER: Final = re.compile(rf"{_PARTITION}=\d{{1,10}}|_delta_log")
_ERROR_NUMBER: Final = re.compile(r"os error (\d+)|Os \{ code: (\d+)")


@dataclass(slots=True, kw_only=True)
class AccountTable:
    """What was done with an account in a table."""

    table: str
    partner_id: int
    run_id: int | None
    """The publication that it shows now; None: the account is no longer there."""
    version: int
    """Version of the table."""
    rows: int | None
    """Rows written; None: it showed that publication already."""
    files_deleted: int = 0
    """Files of earlier commits, and of exports that were interrupted."""


class Lake:
    """The Delta tables at an address."""

    def __init__(self, address: str) -> None:
        """Looks at the address only; raises ConfigurationError."""
        self.store = open_store(address, what="export", private=False)
        self._options = _storage_options(self.store.address)

    @property
    def address(self) -> str:
        return self.store.address

    @property
    def place(self) -> str:
        """By which exports and erasures know that they are in one place, links or not."""
        local = isinstance(self.store, LocalStore)
        return os.path.realpath(self.address) if local else self.address

    def open(self, name: str) -> DeltaTable | None:
        """A table; None if there is none yet.  Raises ConfigurationError if it is not ours."""
        with self._failures("read"):
            uri = self._uri(name)
            if DeltaTable.is_deltatable(uri, self._options):
                table = DeltaTable(uri, storage_options=self._options)
                told = table.metadata()
                if told.description != DESCRIPTION or told.partition_columns != [_PARTITION]:
                    raise self._foreign(f"a Delta table {name} that this program did not make")
                return table
        # What was written before the first commit may be left behind.
        if self.store.files(name) or any(
            not _FOLDER.fullmatch(each) for each in self.store.folders(name)
        ):
            raise self._foreign(f"something else in {name}")
        return None

    def replace(
        self, name: str, columns: Sequence[Column], adds: list[AddAction], tells: _Tells
    ) -> DeltaTable:
        """Replace an account by the files of ``adds``, in one commit; ``tells``: of what it is.

        Raises LeaseHeld if another export has replaced it meanwhile.
        """
        for _ in range(COMMITS_MAX):
            table = self.open(name) or self._create(name, columns)
            if table.transaction_version(tells.state_id) != tells.state_before:
                raise LeaseHeld(
                    f"Another export to {self.address} has replaced account {tells.partner_id} "
                    "meanwhile: run this one again.",
                    reason="target_busy",
                )
            try:
                self._add_columns(table, columns)
                with self._failures("written"):
                    table.create_write_transaction(
                        adds,
                        "overwrite",
                        table.schema(),
                        partition_by=[_PARTITION],
                        partition_filters=[(_PARTITION, "=", str(tells.partner_id))],
                        commit_properties=tells.properties(),
                    )
            except CommitFailedError:
                continue  # most likely another account; what else it may be is asked again above
            with self._failures("read"):
                table.update_incremental()
            return table
        raise ArchiveUnavailable(
            f"The export {self.address} cannot be written: others commit to {name} all the time. "
            "Try again later.",
            archive=self.address,
        )

    def delete_old(self, table: DeltaTable) -> int:
        """Delete files that the table has not had for ``KEEP_HOURS``; returns how many."""
        with self._failures("deleted"):
            return len(
                table.vacuum(
                    retention_hours=KEEP_HOURS,
                    dry_run=False,
                    enforce_retention_duration=False,
                    full=True,
                )
            )

    def delete_unnamed(self, name: str, partner_id: int) -> int:
        """Delete the files of an account that the last commit does not name; returns how many."""
        table = self.open(name)
        with self._failures("read"):
            named = [] if table is None else table.file_uris()
        return self.store.delete(
            f"{name}/{_PARTITION}={partner_id}", but={uri.rpartition("/")[2] for uri in named}
        )

    def _create(self, name: str, columns: Sequence[Column]) -> DeltaTable:
        with self._failures("written"):
            return DeltaTable.create(
                self._uri(name),
                DeltaSchema.from_arrow(arrow_schema(columns)),
                mode="ignore",
                partition_by=[_PARTITION],
                name=name,
                description=DESCRIPTION,
                configuration=_PROPERTIES,
                storage_options=self._options,
            )

    def _add_columns(self, table: DeltaTable, columns: Sequence[Column]) -> None:
        """Those that the view has got since; rows of accounts not exported since have NULL."""
        wanted = {each.name: each for each in DeltaSchema.from_arrow(arrow_schema(columns)).fields}
        there = {each.name: each for each in table.schema().fields}
        for name, found in there.items():
            if name in wanted and wanted[name].type != found.type:
                raise ConfigurationError(
                    f"In {self.address} the column {name} has another type than now: name another "
                    "folder, or delete this one.",
                    reason="target_differs",
                )
        new = [found for name, found in wanted.items() if name not in there]
        if new:
            with self._failures("written"):
                table.alter.add_columns(new)
                table.update_incremental()

    def _uri(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _foreign(self, there: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.address} has {there}: name another folder.", reason="target_not_empty"
        )

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """Turn errors of deltalake into ours; its texts may have addresses and headers in them."""
        try:
            yield
        except (EtlError, CommitFailedError):
            raise
        except Exception as error:
            found = _ERROR_NUMBER.search(str(error))
            if isinstance(self.store, LocalStore) and found is not None:
                number = int(found[1] or found[2])
                raise self.store.failure(what, OSError(number, "")) from None
            raise self.store.failure(what, error) from None


@dataclass(frozen=True, slots=True)
class _Tells:
    """What a commit tells: which publication of an account it is."""

    partner_id: int
    run_id: int
    """0: the account was deleted."""
    published_at: int
    """Microseconds since 1970."""
    state: int
    """Stands for everything that decides what the rows are."""
    state_before: int | None
    """What the table told of it before the rows were read."""

    @property
    def state_id(self) -> str:
        return _identifier(self.partner_id, "state")

    def properties(self) -> CommitProperties:
        told = {
            _identifier(self.partner_id, "run_id"): self.run_id,
            _identifier(self.partner_id, "published_at"): self.published_at,
            self.state_id: self.state,
        }
        return CommitProperties(
            custom_metadata={
                "kaltura_etl.partner_id": str(self.partner_id),
                "kaltura_etl.run_id": str(self.run_id),
                "kaltura_etl.version": program_version(),
            },
            app_transactions=[Transaction(name, number) for name, number in told.items()],
        )


def export_delta(
    url: str,
    schema: str,
    lake: Lake,
    *,
    partner_id: int | None,
    stop: Stop,
    progress: Progress,
) -> list[AccountTable]:
    """Bring the tables up to the last publication of the account, or of all.

    What shows that publication already is left as it is.

    Raises:
        UsageError: nothing is published.
        ConfigurationError: other files are there, or the tables of another warehouse.
        LeaseHeld: an erasure is at work in the tables, or another export of the account.
        Interrupted: ``stop`` was requested.
    """
    done = []
    with (
        target_locked(url, schema, lake.place, alone=False),
        extracting(url, schema) as extract,
    ):
        accounts = extract.accounts(partner_id)
        if not accounts:
            raise UsageError("Nothing has been published yet: there is nothing to export.")
        for account in accounts:
            for name in TABLES:
                done.append(_bring_up(extract, lake, account, name, stop, progress))
        _delete_old(lake, [each for each in done if each.rows is not None])
    return done


@contextmanager
def lake_held(url: str, schema: str, lake: Lake, partner_id: int) -> Iterator[None]:
    """No export writes meanwhile, so that what is erased does not come back.

    Raises LeaseHeld if one does, and ConfigurationError if the account in the tables is of another
    warehouse.
    """
    with target_locked(url, schema, lake.place, alone=True):
        with extracting(url, schema) as extract:
            for name in TABLES:
                _require_own(extract, lake, lake.open(name), partner_id)
        yield


def erase_in_lake(
    url: str, schema: str, lake: Lake, *, partner_id: int, stop: Stop, progress: Progress
) -> list[AccountTable]:
    """Give the tables what the warehouse has of an account after an erasure, perhaps nothing.

    No file and no earlier version with what it had before remains.  Call it within ``lake_held``.
    A second call completes an interrupted one.
    """
    done = []
    with extracting(url, schema) as extract:
        account = next(iter(extract.accounts(partner_id)), None)
        for name in TABLES:
            table = lake.open(name)
            if table is None or _told(table, partner_id, "run_id") is None:
                continue  # it was never exported
            if account is not None:
                done.append(_bring_up(extract, lake, account, name, stop, progress))
            else:
                tells = _Tells(partner_id, 0, 0, 0, _told(table, partner_id, "state"))
                table = lake.replace(name, extract.columns(name), [], tells)
                done.append(
                    AccountTable(
                        table=name,
                        partner_id=partner_id,
                        run_id=None,
                        version=table.version(),
                        rows=0,
                    )
                )
            done[-1].files_deleted = lake.delete_unnamed(name, partner_id)
    return done


def _bring_up(
    extract: Extract,
    lake: Lake,
    account: Account,
    name: str,
    stop: Stop,
    progress: Progress,
) -> AccountTable:
    """Replace an account in a table, unless that shows its last publication."""
    columns = extract.columns(name)
    table = lake.open(name)
    _require_own(extract, lake, table, account.partner_id)
    before = None if table is None else _told(table, account.partner_id, "state")
    tells = _Tells(
        account.partner_id,
        account.run_id,
        _microseconds(account.published_at),
        _state(account, columns),
        before,
    )
    rows = None
    if table is None or before != tells.state:
        progress.stage(f"exporting {name}")
        adds = _write_files(extract, lake, account, name, columns, stop, progress)
        table = lake.replace(name, columns, adds, tells)
        rows = sum(json.loads(add.stats)["numRecords"] for add in adds)
    return AccountTable(
        table=name,
        partner_id=account.partner_id,
        run_id=account.run_id,
        version=table.version(),
        rows=rows,
    )


def _write_files(
    extract: Extract,
    lake: Lake,
    account: Account,
    name: str,
    columns: Sequence[Column],
    stop: Stop,
    progress: Progress,
) -> list[AddAction]:
    """Write the rows of an account; nobody sees the files until they are committed."""
    folder = f"{_PARTITION}={account.partner_id}"
    in_file = [column for column in columns if column.name != _PARTITION]
    adds: list[AddAction] = []
    told = 0

    def write(body: bytes, rows: int) -> None:
        path = f"{folder}/part-{uuid.uuid4()}.parquet"
        lake.store.write(f"{name}/{path}", body)
        adds.append(
            AddAction(
                path,
                len(body),
                {_PARTITION: str(account.partner_id)},
                time.time_ns() // 1_000_000,
                True,
                json.dumps({"numRecords": rows}),
            )
        )

    def tell(rows: int) -> None:
        nonlocal told
        stop.check()
        told += rows
        progress.update(told, None, 0)

    lines = extract.rows(
        name,
        in_file,
        partner_id=account.partner_id,
        selection=Selection(published=name == CERTIFICATES),
        for_people=False,
    )
    stop.check()
    write_parts(lines, partial(ParquetPart, in_file), write, tell)
    stop.check()
    return adds


def _delete_old(lake: Lake, done: Sequence[AccountTable]) -> None:
    for name in TABLES:
        of_table = [each for each in done if each.table == name]
        table = lake.open(name) if of_table else None
        if table is not None:
            of_table[0].files_deleted = lake.delete_old(table)


def _require_own(extract: Extract, lake: Lake, table: DeltaTable | None, partner_id: int) -> None:
    """Raise ConfigurationError if a table has the account of another warehouse."""
    run_id = None if table is None else _told(table, partner_id, "run_id")
    if table is None or not run_id:
        return
    published_at = extract.published_at(partner_id, run_id)
    told = _told(table, partner_id, "published_at")
    if (published_at and _microseconds(published_at)) == told:
        return
    if published_at is None and extract.account_was_erased(partner_id):
        return
    raise ConfigurationError(
        f"{lake.address} has account {partner_id} as of run {run_id}, which this warehouse did not "
        "publish: it is of another one, or of a later state of this one. Name another folder.",
        reason="other_warehouse",
    )


def _told(table: DeltaTable, partner_id: int, what: str) -> int | None:
    number: int | None = table.transaction_version(_identifier(partner_id, what))
    return number


def _identifier(partner_id: int, what: str) -> str:
    return f"kaltura-etl/{partner_id}/{what}"


def _state(account: Account, columns: Sequence[Column]) -> int:
    """63 bits."""
    parts = [account.run_id, account.published_at.isoformat(), account.changes]
    text = json.dumps([*parts, *[(column.name, column.kind) for column in columns]])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def _storage_options(address: str) -> dict[str, str] | None:
    """deltalake reads the same variables as the archive's store, but for plain HTTP."""
    from etl.archive.object_store import is_plain  # noqa: PLC0415

    return {"allow_http": "true"} if is_plain(address) else None
