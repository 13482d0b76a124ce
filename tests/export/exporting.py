"""Exports in this process, and what they wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etl.export.files import Exported, Request, export_files
from etl.export.target import Target, open_target
from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.warehouse.read.extract import Selection

Row = dict[str, str]


class Calling(NoProgress):
    """Calls a function whenever a batch of rows was read."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        super().update(tokens, total, pages)
        self._call()


def exported(
    url: str,
    target: Path | Target,
    *views: str,
    selection: Selection | None = None,
    time_zone: str = "UTC",
    partner_id: int | None = None,
    progress: NoProgress | None = None,
    stop: Stop | None = None,
) -> Exported:
    request = Request(
        file_format="csv",
        views=views,
        selection=selection or Selection(),
        time_zone=time_zone,
        partner_id=partner_id,
    )
    to = open_target(str(target)) if isinstance(target, Path) else target
    return export_files(
        url, "kaltura", request, to, stop=stop or Stop(), progress=progress or NoProgress()
    )


def files_of(folder: Path, view: str) -> list[Path]:
    return sorted((folder / view).rglob("part-*.csv"))


def rows_of(folder: Path, view: str) -> list[Row]:
    """The rows of all files of a view; NULL and empty text look alike."""
    rows: list[Row] = []
    for path in files_of(folder, view):
        with path.open(encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file)
    return rows


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest
