"""What every command needs: its settings, logs on standard error, results on standard output."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from etl.cli.exit_codes import WORTH_RETRYING, exit_code_of
from etl.cli.run_ended import RUNS, RunFacts, ended_event
from etl.errors import EtlError, UsageError
from etl.process.log import (
    StandardErrorHandler,
    abandon_stream,
    exception_places,
    is_terminal,
    json_text,
    setup_logging,
    wants_json,
)
from etl.process.secrets import scrub
from etl.process.stop import Stop
from etl.settings.read import LoadedSettings, load_settings
from etl.settings.table import Settings
from etl.settings.values import database_address

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etl.process.progress import Progress

log = logging.getLogger("etl.cli")

PIPE_WIDTH = 160
"""Columns of a table that is not printed on a terminal."""


class Runtime:
    """One call of the program.  The options fill it, the command uses it."""

    def __init__(self) -> None:
        self.command: str | None = None
        """Its name, once that is known to be one."""
        self.run_facts = RunFacts()
        """If the command is a run."""
        self.flags: dict[str, str] = {}
        """Text given to options that are settings, by name of the field."""
        self.json = False
        self.verbose = False
        self.quiet = False
        """Print nothing unless the command fails, and then one line."""
        self.terse = False
        """Log warnings and errors only, and show no progress: what is printed says enough."""
        self.result_printed = False
        self.partner_id: int | None = None
        self.warehouse: dict[str, object] | None = None
        """``host``, ``port``, ``database`` and ``schema``, and ``embedded_in`` if it is the
        embedded Postgres; None as long as they are not known."""
        self.settings: Settings | None = None
        """Once they were read, as far as they are valid."""
        self.stop = Stop()
        self._handler: StandardErrorHandler | None = None
        self._json_log = False

    @property
    def is_run(self) -> bool:
        return self.command in RUNS

    def begins(self, command: str | None, arguments: Sequence[str]) -> None:
        """Remember which command was given, and what its arguments say if it is a run."""
        self.command = command
        if command is not None and self.is_run:
            self.run_facts.presume(command, arguments)

    def learn(self) -> LoadedSettings:
        """Load the settings, and remember which account and warehouse this call is about."""
        loaded = load_settings(self.flags)
        self.settings = settings = loaded.settings
        scrub.add(*loaded.secrets)
        self.partner_id = settings.partner_id
        if settings.database_url is not None:
            self.opens(settings.database_url, settings.schema)
        return loaded

    def load(self) -> LoadedSettings:
        """Load the settings as far as they are valid, and configure logging."""
        loaded = self.learn()
        settings = loaded.settings
        level = settings.log_level
        if self.verbose and self.quiet:
            raise UsageError("--verbose and --quiet contradict each other; give one.")
        if self.verbose:
            level = "DEBUG"
        elif self.quiet:
            level = "ERROR"
        elif self.terse and level in ("DEBUG", "INFO"):
            level = "WARNING"
        self._handler = setup_logging(
            level=level, log_format=settings.log_format, secrets=loaded.secrets
        )
        self._json_log = wants_json(settings.log_format)
        return loaded

    def opens(self, database_url: str, schema: str, embedded_in: Path | None = None) -> None:
        """Remember which warehouse this call is about, for its result and the end of its log."""
        self.warehouse = {**database_address(database_url, os.environ), "schema": schema}
        if embedded_in is not None:
            self.warehouse["embedded_in"] = str(embedded_in)

    def warehouse_text(self) -> str | None:
        """The warehouse for a person; None as long as it is not known."""
        known = self.warehouse
        if known is None:
            return None
        if "embedded_in" in known:
            return f"embedded in {known['embedded_in']}, schema {known['schema']}"
        address = f"{known['host'] or 'local socket'}"
        if known["port"] is not None:
            address += f":{known['port']}"
        return f"{address}/{known['database'] or ''}, schema {known['schema']}"

    def start(self, *, without: str = "") -> Settings:
        """The settings; raises the first problem, but of the setting ``without``."""
        loaded = self.load()
        for warning in loaded.warnings:
            log.warning(warning)
        return loaded.checked(without=without)

    def progress(
        self, *, alone: bool = True, unit: str = "tokens"
    ) -> AbstractContextManager[Progress]:
        """The progress of one run; a bar only if no other run is shown at the same time.

        ``unit``: what is counted.
        """
        from etl.process.progress import open_progress, wants_bar

        quiet = self.quiet or self.terse
        bar = alone and wants_bar(self._json_log)
        return open_progress(self._handler, bar=bar, quiet=quiet, unit=unit)

    def run_ended(
        self, error: BaseException | None, failure: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """The keys of ``run ended``; ``failure``: those of ``failure_fields``, if it failed."""
        return ended_event(
            self.run_facts,
            error,
            failure,
            partner_id=self.partner_id,
            warehouse=self.warehouse,
        )

    def print_result(
        self,
        result: Mapping[str, object],
        *tables: RenderableType,
        failure: EtlError | None = None,
    ) -> None:
        """Print one JSON object, or the tables, on standard output; with --quiet no tables.

        ``failure``: what the command will raise, although it has a result.  An empty ``result`` is
        a part of one: after the tables of a whole one comes the warehouse.
        """
        self.result_printed = True
        if self.json:
            self.print_json(result, {} if failure is None else failure_fields(failure))
            return
        if self.quiet:
            return
        from etl.cli.tables import paragraph, text_of

        if result and (warehouse := self.warehouse_text()) is not None:
            tables = (*tables, paragraph(f"Warehouse: {warehouse}", style="dim"))
        on_terminal = is_terminal(sys.stdout)
        width = None if on_terminal else PIPE_WIDTH
        write_output(text_of(tables, width=width, terminal=on_terminal))

    def print_json(self, result: Mapping[str, object], failure: Mapping[str, object]) -> None:
        """One object, which begins with the keys that every command has."""
        common = {
            "status": "failed" if failure else "succeeded",
            "exit_code": 0,
            "partner_id": self.partner_id,
            "run_id": None,
            "warehouse": self.warehouse,
        }
        write_output(json_text({**common, **result, **failure}, length_limit=None) + "\n")


def failure_fields(
    error: BaseException, *, kind: str | None = None, message: str | None = None
) -> dict[str, object]:
    """The keys of a failure: what ended the command, and whether it may be tried again."""
    fields = error.fields if isinstance(error, EtlError) else {}
    code = exit_code_of(error)
    found: dict[str, object] = {
        "status": "failed",
        "exit_code": code,
        "error_kind": kind or getattr(error, "kind", EtlError.kind),
        "error_message": message or str(error),
        "reason": fields.get("reason") or fields.get("code"),
        "retryable": code in WORTH_RETRYING,
    }
    return found | {"run_id": fields["run_id"]} if fields.get("run_id") else found


def bug_message(error: BaseException) -> str:
    """What is said of an error that was not raised on purpose.

    Its own text may contain a row or a statement: --verbose shows what is safe.
    """
    places = exception_places(error)
    return (
        f"This is a bug: {type(error).__name__} at {places[-1] if places else 'start'}. "
        "Run the command again with --verbose and report its output."
    )


def write_output(text: str) -> None:
    """Write a result.  If its reader is gone, what was done stays done: no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_stream(sys.stdout)
    except (OSError, ValueError, AttributeError) as exc:
        # A full disk, or a standard output that was closed before the program started.
        abandon_stream(sys.stdout)
        reason = getattr(exc, "strerror", None) or "it is closed"
        log.error("The result could not be written to standard output: %s.", reason)
