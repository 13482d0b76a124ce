"""An export of views to CSV or Parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from etl.errors import UsageError
from etl.export.parts import CsvPart, ParquetPart, Part, write_parts
from etl.export.target import MANIFEST_VERSION, Target, Writer
from etl.resources import program_version
from etl.warehouse.read.extract import (
    Account,
    Column,
    Extract,
    Selection,
    exportable,
    exported_unasked,
    extracting,
)

if TYPE_CHECKING:
    from etl.process.progress import Progress
    from etl.process.stop import Stop

FileFormat = Literal["csv", "parquet"]
_PARTS: Final[dict[str, Callable[[Sequence[Column]], Part]]] = {
    "csv": CsvPart,
    "parquet": ParquetPart,
}
_BY_ACCOUNT: Final = "partner_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be exported."""

    file_format: FileFormat
    views: Sequence[str] = ()
    """Without any: those of ``exported_unasked`` that have what the selection goes by."""
    selection: Selection = field(default_factory=Selection)
    time_zone: str = "UTC"
    partner_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The result; ``written`` is false if the same was there already."""

    written: bool
    accounts: list[dict[str, Any]]
    views: list[dict[str, Any]]


def export_files(
    url: str, schema: str, request: Request, target: Target, *, stop: Stop, progress: Progress
) -> Exported:
    """Write what is asked for to ``target``, all from one snapshot, or nothing.

    Raises:
        UsageError: a view that there is not, or that cannot be selected from like that; an account
            without a published run; a target with something else in it.
        LeaseHeld: another export is writing to that folder.
        Interrupted: ``stop`` was requested.
    """
    _require_known(request.views)
    before = target.manifest()
    with extracting(url, schema, time_zone=request.time_zone) as extract:
        accounts = extract.accounts(request.partner_id)
        _require_accounts(extract, request, accounts)
        views = _selected(extract, request)
        manifest = _manifest(request, accounts, views)
        if before is not None:
            if any(before.get(key) != manifest[key] for key in ("request", "accounts")):
                raise UsageError(
                    f"{target.address} has another export already: name a folder that is empty or "
                    "new, such as one per day.",
                    reason="target_not_empty",
                )
            return Exported(written=False, accounts=manifest["accounts"], views=before["views"])
        with target.writing() as writer:
            writing = _Writing(extract, request, writer, stop, progress)
            for view, columns in views.items():
                manifest["views"].append(writing.view(view, columns, accounts))
            writer.finish(manifest)
    return Exported(written=True, accounts=manifest["accounts"], views=manifest["views"])


class _Writing:
    """Writes view after view."""

    def __init__(
        self,
        extract: Extract,
        request: Request,
        writer: Writer,
        stop: Stop,
        progress: Progress,
    ) -> None:
        self._extract = extract
        self._request = request
        self._writer = writer
        self._stop = stop
        self._progress = progress

    def view(
        self, view: str, columns: Sequence[Column], accounts: Sequence[Account]
    ) -> dict[str, Any]:
        """What the manifest says of a view, when its files are written."""
        self._progress.stage(f"exporting {view}")
        by_account = any(column.name == _BY_ACCOUNT for column in columns)
        files: list[dict[str, Any]] = []
        for account in accounts if by_account else [None]:
            self._files(view, columns, account, files)
        return {
            "view": view,
            "rows": sum(file["rows"] for file in files),
            "bytes": sum(file["bytes"] for file in files),
            "cut_by": None
            if self._request.selection.is_all
            else self._request.selection.cut_by(columns),
            "columns": [
                {"name": column.name, "kind": column.kind, "type": column.type_name}
                for column in columns
            ],
            "files": files,
        }

    def _files(
        self,
        view: str,
        columns: Sequence[Column],
        account: Account | None,
        files: list[dict[str, Any]],
    ) -> None:
        file_format = self._request.file_format
        folder = view if account is None else f"{view}/{_BY_ACCOUNT}={account.partner_id}"
        in_file = list(columns)
        if file_format == "parquet" and account is not None:
            # The name of the folder says it: other programs expect it there and nowhere else.
            in_file = [column for column in columns if column.name != _BY_ACCOUNT]
        first = len(files)
        told = sum(file["rows"] for file in files)

        def write(body: bytes, rows: int) -> None:
            name = f"{folder}/part-{len(files) - first:05}.{file_format}"
            self._writer.write(name, body)
            sha256 = hashlib.sha256(body).hexdigest()
            files.append({"name": name, "rows": rows, "bytes": len(body), "sha256": sha256})

        def tell(rows: int) -> None:
            nonlocal told
            self._stop.check()
            told += rows
            self._progress.update(told, None, 0)

        rows = self._extract.rows(
            view,
            in_file,
            partner_id=None if account is None else account.partner_id,
            selection=self._request.selection,
            for_people=file_format == "csv",
        )
        self._stop.check()
        write_parts(rows, partial(_PARTS[file_format], in_file), write, tell)


def _require_known(views: Sequence[str]) -> None:
    known = exportable()
    for view in views:
        if view not in known:
            raise UsageError(f"--view: there is no {view}; there are {', '.join(known)}.")


def _require_accounts(extract: Extract, request: Request, accounts: Sequence[Account]) -> None:
    if not accounts:
        whose = "" if request.partner_id is None else f" of account {request.partner_id}"
        raise UsageError(f"Nothing{whose} has been published yet: there is nothing to export.")
    since = request.selection.since_run
    if since is None:
        return
    if len(accounts) > 1:
        raise UsageError(
            "--since-run is a run of one account, and there are several here: choose one with "
            "--partner-id."
        )
    if extract.published_at(accounts[0].partner_id, since) is None:
        raise UsageError(
            f"--since-run: {since} is no published run of account {accounts[0].partner_id}."
        )


def _selected(extract: Extract, request: Request) -> dict[str, list[Column]]:
    """The columns of each view that is exported."""
    selection = request.selection
    found = {}
    for view in request.views or exported_unasked():
        columns = extract.columns(view)
        if selection.is_all or selection.cut_by(columns) is not None:
            found[view] = columns
        elif request.views:
            what = "the run" if selection.since_run is not None else "a day"
            raise UsageError(f"--view {view}: its rows do not say which {what} they are of.")
    return found


def _manifest(
    request: Request, accounts: Sequence[Account], views: dict[str, list[Column]]
) -> dict[str, Any]:
    selection = request.selection
    return {
        "manifest_version": MANIFEST_VERSION,
        "program_version": program_version(),
        "request": {
            "format": request.file_format,
            "views": list(views),
            "first_day": selection.first_day and selection.first_day.isoformat(),
            "last_day": selection.last_day and selection.last_day.isoformat(),
            "since_run": selection.since_run,
            "time_zone": request.time_zone,
        },
        "accounts": [
            {
                "partner_id": account.partner_id,
                "run_id": account.run_id,
                "published_at": account.published_at.isoformat(),
                "changes": account.changes,
            }
            for account in accounts
        ],
        "views": [],
    }
