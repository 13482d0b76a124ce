"""What a campaign is, and the ground on which its cases run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg import sql

from tests.support.databases import with_database
from tests.support.retries import without_waits
from tests.support.roles import own_database

T = TypeVar("T")
SCHEMA = "kaltura"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a case went; a breach of the promise is an exception instead."""

    case: str
    """What the seed made of it, such as ``reset-body, middle page, once``."""
    result: str
    """One of a few, such as ``exit 69``: endings are counted by it."""
    figures: Mapping[str, int] = field(default_factory=dict)
    """What is summed over the cases, such as the tokens compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Cases of one kind.  A case is a seed: the same seed is the same case."""

    name: str
    promise: str
    """What holds in every case, as ``docs/evidence.md`` says it."""
    run: Callable[[Ground, int], Ending]
    """Run one case; raises AssertionError, or anything else, if the promise is broken."""
    in_slice: int
    """Cases in ``./dev test``; 0 where other tests do the same with other seeds."""
    in_all: int
    """Cases in ``./dev test all``."""
    table: int | None = None
    """So many consecutive seeds meet each combination once; None if cases are random."""
    first_of_slice: int = 0
    """Seed of the slice's first case."""
    stuck_seconds: int = 120
    """A case that takes longer is a breach."""
    found: tuple[str, ...] = ()
    """What its cases have found in the program, and where that was mended."""
    not_done: tuple[str, ...] = ()
    """What one may expect of it and it does not do."""


class Ground:
    """What the cases of one process share: a Postgres, and whatever they keep on it.

    Until it is closed, runs in this process do not wait between two attempts.
    """

    def __init__(
        self, postgres_url: str, template: str, folder: Path, *, tokens: int | None = None
    ) -> None:
        self.postgres_url = postgres_url
        self.template = template
        """Name of a migrated database."""
        self.folder = folder
        """A folder for outputs; the server's user cannot reach it."""
        self.tokens = tokens
        """Size of an account, for campaigns that have one; None for the usual."""
        self._kept: dict[object, object] = {}
        self._stack = ExitStack()
        self.keep("no waits", without_waits)

    def keep(self, key: object, make: Callable[[], AbstractContextManager[T]]) -> T:
        """Enter a context at the first call with this key, to be left at the end."""
        if key not in self._kept:
            self._kept[key] = self._stack.enter_context(make())
        kept: T = self._kept[key]  # type: ignore[assignment]
        return kept

    def database(self) -> AbstractContextManager[str]:
        """The URL of a migrated database, dropped afterwards."""
        return own_database(self.postgres_url, self.template)

    def close(self) -> None:
        self._kept.clear()
        self._stack.close()


@contextmanager
def new_ground(*, tokens: int | None = None) -> Iterator[Ground]:
    """A ground with a Postgres of its own, for a process that is not a test."""
    from etl.embedded.server import embedded_server
    from etl.warehouse.schema.revision import migrate

    folder = Path(tempfile.mkdtemp(prefix="kaltura-etl-campaign-"))
    folder.chmod(0o711)  # the server runs as another user, if this is root
    try:
        with embedded_server(folder / "postgres", fast=True) as url:
            template = "template_kaltura"
            with closing(psycopg.connect(url, autocommit=True)) as admin:
                admin.execute(sql.SQL("create database {}").format(sql.Identifier(template)))
            migrate(with_database(url, template), SCHEMA)
            ground = Ground(url, template, folder, tokens=tokens)
            with closing(ground):
                yield ground
    finally:
        shutil.rmtree(folder, ignore_errors=True)
