"""``kaltura-etl demo``."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from etl.cli.options import json_option, log_options, pass_runtime
from etl.cli.runtime import Runtime, write_output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etl.demo import Answer, Night

NIGHT_WIDTHS = {
    "run": 3,
    "night": 10,
    "tokens": 6,
    "new": 5,
    "changed": 5,
    "absent": 5,
    "back": 4,
    "requests": 5,
    "seconds": 5,
    "cover": 5,
}
"""79 columns with their names, the gaps between them, and the figures of a default account."""
ROWS_SHOWN = 10


@click.command()
@click.option(
    "--nights", type=click.IntRange(2, 60), default=7, show_default=True, help="Nights to simulate."
)
@click.option(
    "--tokens",
    type=click.IntRange(100, 1_000_000),
    default=5_000,
    show_default=True,
    help="Tokens of the account at the start.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the simulated account."
)
@click.option("--sql", "with_sql", is_flag=True, help="Show the SQL of each question, too.")
@json_option
@log_options
@pass_runtime
def demo(runtime: Runtime, nights: int, tokens: int, seed: int, with_sql: bool) -> None:
    """Sync a simulated account over seven simulated nights.

    Each night is synced into the embedded Postgres, schema kaltura_demo, regardless of
    DATABASE_URL; then example questions of analysts are answered on screen.
    """
    if not runtime.verbose:
        runtime.terse = True  # the line of each night has it already
    settings = runtime.start(without="DATABASE_URL")
    runtime.stop.install()
    from etl.cli.database import open_warehouse
    from etl.demo import SCHEMA, Night, run_demo
    from etl.process.log import is_at_terminal
    from etl.settings.table import Settings

    # Nothing else of the settings: a demonstration must never write into a real warehouse or
    # read from a real account.
    embedded = "no" if settings.embedded == "no" else "yes"
    own = Settings(data_dir=settings.data_dir, embedded=embedded, schema=SCHEMA)
    lived: list[Night] = []
    answers: list[Answer] = []
    with open_warehouse(own, create=True) as opened:
        for event in run_demo(opened, nights=nights, tokens=tokens, seed=seed, stop=runtime.stop):
            if isinstance(event, Night):
                _show(runtime, *([] if lived else [_introduction(tokens)]), _night(event))
                lived.append(event)
            else:
                answers.append(event)
                _show(runtime, *_answer(event, with_sql=with_sql), before="\n")
    if runtime.json:
        runtime.print_result(
            {
                "status": "succeeded",
                "schema": SCHEMA,
                "nights": [dataclasses.asdict(night) for night in lived],
                "answers": [dataclasses.asdict(answer) for answer in answers],
            }
        )
    else:
        needs_word = settings.embedded == "auto" and not is_at_terminal()
        what_next = _what_next(SCHEMA, answers, with_sql=with_sql, needs_word=needs_word)
        _show(runtime, *what_next, before="\n")


def _show(runtime: Runtime, *parts: RenderableType, before: str = "") -> None:
    if not (runtime.json or runtime.quiet):
        if before:
            write_output(before)
        runtime.print_result({}, *parts)


def _introduction(tokens: int) -> RenderableType:
    from etl.cli.tables import paragraph

    return paragraph(
        f"A simulated account of {tokens:,} tokens, which is read over HTTP each night. The "
        "nights are simulated, the syncs are real: they run now, and are then dated to their "
        "nights. The cover {(,)} is everything: no token that was listed throughout the run can "
        "be missing.\n"
    )


def _night(night: Night) -> RenderableType:
    from etl.cli.tables import StreamedTable

    return StreamedTable(NIGHT_WIDTHS).row(
        {
            "run": str(night.run_id),
            "night": f"{night.at:%a %d %b}" if night.night else "first load",
            "tokens": night.tokens,
            "new": night.new,
            "changed": night.changed,
            "absent": night.absent,
            "back": night.relisted,
            "requests": night.requests,
            "seconds": night.seconds,
            "cover": night.coverage,
        },
        heading=night.night == 0,
    )


def _answer(answer: Answer, *, with_sql: bool) -> list[RenderableType]:
    from etl.cli.tables import paragraph, rows_table
    from etl.process.log import printable

    parts = [
        paragraph(answer.question, style="bold"),
        paragraph(f"sql/queries/{answer.file}\n", style="dim"),
    ]
    if with_sql:
        query = "\n".join(map(printable, answer.sql.splitlines()))
        parts.append(paragraph(f"{query}\n", style="dim"))
    rows = [{name: _cell(value) for name, value in row.items()} for row in answer.rows]
    parts.append(rows_table("", rows, shown=ROWS_SHOWN) if rows else paragraph("    (no rows)"))
    if answer.note and answer.rows:
        parts.append(paragraph(f"\n{answer.note}"))
    return parts


def _cell(value: object) -> object:
    """As a person writes it: a time to the minute, a list without brackets and quotes."""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%MZ}"
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _what_next(
    schema: str, answers: list[Answer], *, with_sql: bool, needs_word: bool
) -> list[RenderableType]:
    """``needs_word``: whether the other commands use the embedded Postgres only if told to."""
    from etl.cli.tables import paragraph
    from etl.resources import as_named, document, program_call, sql_directory

    program = program_call()
    lines = [f"The warehouse stays in schema {schema} until the next demo. Next steps:", ""]
    if needs_word:
        lines += ["    export ETL_EMBEDDED=yes     # there is no terminal here"]
    if not with_sql:
        lines += [
            f"    {program.removesuffix(' run')} demo --sql     # with the SQL of each answer"
        ]
    lines += [
        f"    {program.removesuffix(' run')} psql --schema {schema}",
        "        \\d+ upload_token_history",
    ]
    asked = next(answer for answer in answers if answer.variables)
    lines += [f"        \\set {name} {value}" for name, value in asked.variables.items()]
    lines += [f"        \\i {as_named(sql_directory() / 'queries' / asked.file)}"]
    page = as_named(document("howto/ask.md"))
    lines += [f"    {page}     # more questions, and how to read the answers"]
    lines += [
        f"    {program} status --schema {schema}",
        f"    {program} verify --schema {schema}",
        "",
        "A real account:",
        "",
        f"    {program} init",
    ]
    return [paragraph("\n".join(lines))]
