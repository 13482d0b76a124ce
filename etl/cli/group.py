"""The group of commands.  Each is imported when it is called, so that ``--help`` is fast.

This is the only place that catches every exception: it turns them into one line and an exit code.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from etl.cli.exit_codes import EXIT_CODES, exit_code_of
from etl.cli.runtime import Runtime, bug_message, failure_fields
from etl.errors import EtlError, Interrupted
from etl.process.log import (
    STANDARD_FIELDS,
    StandardErrorHandler,
    abandon_stream,
    printable,
    setup_logging,
)
from etl.process.secrets import scrub

# Importing makes a few hundred thousand objects and no garbage.  Python's own threshold (700) has
# them looked at again and again: a tenth of the processor time of a small run.
_COLLECT_AFTER_OBJECTS = 50_000

log = logging.getLogger("etl.cli")

# Repeated here so that the group's --help imports no command; a test compares them.
COMMANDS: dict[str, str] = {
    "init": "Ask for the settings of an account, and write them to a private file.",
    "check": "Check settings, service, session and warehouse; write nothing.",
    "migrate": "Bring the warehouse's schema to this program's version.",
    "sync": "Read the account's upload tokens and publish what changed.",
    "backfill": "Read a range of createdAt, or given ids, and publish what changed.",
    "replay": "Rebuild the warehouse from an archive, with the original timestamps.",
    "status": "Show recent runs, the freshness of the data, and counts by status.",
    "psql": "Open a psql shell on the warehouse, with search_path set to its schema.",
    "verify": "Check the invariants and re-derive the certificates of completeness.",
    "report": "Generate a self-contained HTML report.",
    "export": "Write views to CSV or Parquet files, or keep the history in Delta tables.",
    "grant": "Print or apply the privileges of the loader, analyst and auditor roles.",
    "erase": "Replace a user's or a token's personal data with pseudonyms, or delete an account.",
    "prune": "Delete old pages, rejected rows and, on request, superseded versions.",
    "demo": "Sync a simulated account over seven simulated nights.",
    "simulate": "Serve a simulated Kaltura on the loopback interface until interrupted.",
}


class LazyGroup(click.Group):
    """Imports ``etl.cli.NAME`` when NAME is called, and ends the process with our exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"etl.cli.{cmd_name}"), cmd_name)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        ctx.ensure_object(Runtime).begins(name, rest)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        gc.set_threshold(_COLLECT_AFTER_OBJECTS, *gc.get_threshold()[1:])
        for stream in (sys.stdout, sys.stderr):
            # A character that the terminal cannot show must not end a run.
            with contextlib.suppress(Exception):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        runtime = Runtime()
        arguments = list(sys.argv[1:] if args is None else args)
        name = prog_name or "kaltura-etl"
        try:
            # Not click's own main: it exits silently with 1 on any broken pipe, even a socket's.
            self._main_shell_completion(extra, name, complete_var)
            with self.make_context(name, arguments, obj=runtime, **extra) as context:
                self.invoke(context)
            code = 0
            if runtime.is_run:
                from etl.cli.monitoring import conclude

                event = runtime.run_ended(None)
                conclude(runtime, None, event)
                log.info(runtime.run_facts.event_name, extra=event)
        except click.exceptions.Exit as end:
            code = end.exit_code
        except BaseException as error:
            if isinstance(error, SystemExit):
                raise
            if isinstance(error, click.UsageError) and "--json" in arguments:
                runtime.json = True  # a wrong option keeps click from looking at the others
            if isinstance(error, KeyboardInterrupt):
                signal.signal(
                    signal.SIGINT, signal.SIG_IGN
                )  # a second one is not to hide the first
            code = _report(error, runtime)
        # A closed pipe would change the exit code to 120 when the interpreter exits.
        if _output_is_broken():
            abandon_stream(sys.stdout)
        runtime.stop.end()
        sys.exit(code)


def _report(error: BaseException, runtime: Runtime) -> int:
    """Report in one line what ended the program, and return its exit code."""
    if isinstance(error, BrokenPipeError) and _output_is_broken():
        # The reader of --help or of a result is gone, as with --help | head.
        abandon_stream(sys.stdout)
        return 0
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return error.exit_code
    if isinstance(error, click.ClickException):
        kind, code, message = "usage", error.exit_code, error.format_message()
        if isinstance(error, click.UsageError) and error.ctx is not None:
            message += f" Try '{error.ctx.command_path} --help'."
    elif isinstance(error, click.Abort):
        code = exit_code_of(KeyboardInterrupt())
        kind, message = Interrupted.kind, "Interrupted."
    elif isinstance(error, EtlError):
        kind, code, message = error.kind, exit_code_of(error), error.message
    else:
        kind, code = EtlError.kind, exit_code_of(error)
        message = bug_message(error)
    if isinstance(error, KeyboardInterrupt):
        kind, message = Interrupted.kind, "Interrupted."
    if runtime.settings is None:
        runtime.learn()  # the command line was wrong before the settings were read
    message = printable(scrub(message))
    failure = failure_fields(error, kind=kind, message=message) | {"exit_code": code}
    _set_up_log()
    fields: dict[str, object] = {}
    if runtime.warehouse is not None:
        fields["warehouse"] = runtime.warehouse
    if runtime.is_run:
        from etl.cli.monitoring import conclude

        event = runtime.run_ended(error, failure)
        conclude(runtime, error, event, message)
        fields |= {**event, "event": runtime.run_facts.event_name}
    log_error(error, failure, fields)
    if runtime.json and not runtime.result_printed:
        runtime.print_json({}, failure)
    return code


def _set_up_log() -> None:
    """Unless the settings have: the command line may have been wrong before they were read."""
    handlers = logging.getLogger().handlers
    if not any(
        isinstance(each, StandardErrorHandler) and each.stream is sys.stderr for each in handlers
    ):
        log_format = os.environ.get("ETL_LOG_FORMAT", "auto").strip().lower()
        setup_logging(log_format=log_format if log_format in ("auto", "text", "json") else "auto")


def log_error(
    error: BaseException, failure: Mapping[str, object], fields: Mapping[str, object]
) -> None:
    """As a log event with these fields; ``failure``: those of ``failure_fields``."""
    own: dict[str, object] = {key: failure[key] for key in ("error_kind", "exit_code")}
    if isinstance(error, EtlError):
        # logging refuses extra keys that are its own, such as "name" and "message".
        own |= {
            key: value
            for key, value in error.fields.items()
            if key not in STANDARD_FIELDS and value is not None
        }
    log.debug("where it happened", exc_info=error)
    log.error("%s", failure["error_message"], extra={**own, **fields})


def _output_is_broken() -> bool:
    """Flush standard output and say whether that failed."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        return True
    return False


def _print_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    if value and not context.resilient_parsing:
        from etl.resources import program_version

        click.echo(f"kaltura-etl {program_version()}")
        context.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Keep the complete history of a Kaltura account's upload tokens in Postgres.

    Settings come from a command's options, else the environment, else the file named by
    VARIABLE_FILE; kaltura-etl check shows each with its source.
    """
