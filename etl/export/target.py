"""Where the files of an export go: a folder, or the same layout in an object store.

    VIEW/partner_id=102/part-00000.parquet
    manifest.json

An export is there when its manifest is, which is written last.  In a folder the files are made
aside, in ``.partial``, and moved when they are all there.  What an export that was killed left
behind is deleted by the next one; anything else is left alone, and refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from etl.archive.stores import LocalStore, Store, open_store
from etl.errors import LeaseHeld, UsageError

MANIFEST: Final = "manifest.json"
MANIFEST_VERSION: Final = 1
_ASIDE: Final = ".partial"
_FILE: Final = re.compile(r"part-\d{5}\.(csv|parquet)")
_ACCOUNT: Final = re.compile(r"partner_id=\d{1,10}")
_VIEW: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Target(Protocol):
    """Raises what ``etl.archive.stores.Store`` raises."""

    @property
    def address(self) -> str:
        """Its name in messages."""
        ...

    def manifest(self) -> dict[str, Any] | None:
        """What is said of the export that is there; None if there is none.

        Raises UsageError if there is anything else.
        """
        ...

    def writing(self) -> contextlib.AbstractContextManager[Writer]:
        """Write an export where there is none; what it wrote goes if it fails."""
        ...


class Writer(Protocol):
    """Writes the files of one export."""

    def write(self, name: str, body: bytes) -> None:
        """A file such as ``stuck_upload/partner_id=102/part-00000.csv``."""

    def finish(self, manifest: dict[str, Any]) -> None:
        """All files are written."""


def open_target(address: str) -> Target:
    """The target of ``--to``: a folder or a URL; looks at the address only.

    Raises ConfigurationError.
    """
    store = open_store(address, what="export", private=False)
    return _Folder(store) if isinstance(store, LocalStore) else _Objects(store)


class _Objects:
    """In an object store, where a put is atomic but nothing can be moved."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def address(self) -> str:
        return self._store.address

    def manifest(self) -> dict[str, Any] | None:
        there = _files(self._store)
        body = self._store.read(MANIFEST)
        if body is None:
            return None
        try:
            told = json.loads(body)
            named = {file["name"] for view in told["views"] for file in view["files"]}
            version = told["manifest_version"]
        except (ValueError, KeyError, TypeError):
            raise _refused(self._store, "a manifest.json that is not one of an export") from None
        if version != MANIFEST_VERSION:
            raise _refused(self._store, "an export of another version of this program")
        if named != there:
            raise _refused(self._store, "an export of which files are missing, or with others")
        return dict(told)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        self._delete_leftovers()
        try:
            yield self
        except BaseException:
            with contextlib.suppress(Exception):
                self._delete_leftovers()
            raise

    def write(self, name: str, body: bytes) -> None:
        self._store.write(name, body)

    def finish(self, manifest: dict[str, Any]) -> None:
        self._store.write(MANIFEST, _encoded(manifest))

    def _delete_leftovers(self) -> None:
        """What an export without a manifest left behind."""
        for view in sorted({name.partition("/")[0] for name in _files(self._store)}):
            self._store.delete(view)


class _Folder(_Objects):
    """In a folder, which one export at a time writes."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._root = Path(store.address)
        self._aside = LocalStore(self._root / _ASIDE, what="export", private=False)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        made = [path for path in (self._root, *self._root.parents) if not path.exists()]
        self._aside.write("lock", b"")  # makes the folders, with the errors of a store
        with _locked(self._root), super().writing():
            try:
                yield self
            except BaseException:
                shutil.rmtree(self._root / _ASIDE, ignore_errors=True)
                for path in made:
                    with contextlib.suppress(OSError):
                        path.rmdir()
                raise

    def write(self, name: str, body: bytes) -> None:
        self._aside.write(name, body)

    def finish(self, manifest: dict[str, Any]) -> None:
        for view in self._aside.folders(""):
            (self._root / _ASIDE / view).rename(self._root / view)
        super().finish(manifest)  # which makes the moves durable as well
        shutil.rmtree(self._root / _ASIDE, ignore_errors=True)

    def _delete_leftovers(self) -> None:
        super()._delete_leftovers()
        for view in self._aside.folders(""):
            self._aside.delete(view)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeaseHeld(
                f"Another export is writing to {folder}: wait until it has ended.",
                reason="target_busy",
            ) from None
        except OSError:
            pass  # a network file system without locks: then nothing keeps two exports apart
        yield
    finally:
        os.close(descriptor)


def _files(store: Store) -> set[str]:
    """The names of the files of an export; raises UsageError if there is anything else."""
    names = set()
    others = [name for name in store.files("") if name != MANIFEST]
    for view in store.folders(""):
        others += [f"{view}/"] if not _VIEW.fullmatch(view) else []
        accounts = store.folders(view)
        others += [f"{view}/{each}/" for each in accounts if not _ACCOUNT.fullmatch(each)]
        for folder in (view, *(f"{view}/{account}" for account in accounts)):
            for name in store.files(folder):
                names.add(f"{folder}/{name}")
                others += [] if _FILE.fullmatch(name) else [f"{folder}/{name}"]
    if others:
        raise _refused(store, f"other files, such as {others[0]}")
    return names


def _refused(store: Store, there: str) -> UsageError:
    return UsageError(
        f"{store.address} has {there}: name a folder that is empty or new, such as one per day.",
        reason="target_not_empty",
    )


def _encoded(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, default=str) + "\n").encode()
