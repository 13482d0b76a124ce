"""``kaltura-etl demo``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etl.cli.options import json_option, log_options, pass_runtime
from etl.cli.runtime import Runtime, write_output

if TYPE_CHECKING:
    from etl.demo import Answer, Night

NIGHT_LINE = "{:>3}  {:<12} {:>7} {:>6} {:>7} {:>6} {:>8} {:>8} {:>7}  {}"
"""80 columns."""
ROWS_SHOWN = 8


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
@json_option
@log_options
@pass_runtime
def demo(runtime: Runtime, nights: int, tokens: int, seed: int) -> None:
    """Sync a simulated account over seven simulated nights.

    Each night is synced into the embedded Postgres, schema kaltura_demo, regardless of
    DATABASE_URL; then example questions of analysts are answered on screen.
    """
    if not runtime.verbose:
        runtime.quiet = True  # the line of each night has it already
    data_dir = runtime.start().data_dir
    runtime.stop.install()
    from etl.cli.database import open_warehouse
    from etl.demo import SCHEMA, Night, run_demo
    from etl.settings.table import Settings

    # Nothing else of the settings: a demonstration must never write into a real warehouse or
    # read from a real account.
    own = Settings(data_dir=data_dir, schema=SCHEMA)
    lived: list[Night] = []
    answers: list[Answer] = []
    with open_warehouse(own, create=True) as opened:
        for event in run_demo(opened, nights=nights, tokens=tokens, seed=seed, stop=runtime.stop):
            if isinstance(event, Night):
                _show(runtime, *(() if lived else _heading(tokens)), _night_line(event))
                lived.append(event)
            else:
                answers.append(event)
                _show(runtime, *_answer(event), before="\n")
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
        _show(runtime, *_what_next(SCHEMA, answers), before="\n")


def _show(runtime: Runtime, *parts: Any, before: str = "") -> None:
    if not runtime.json:
        if before:
            write_output(before)
        runtime.print_result({}, *parts)


def _heading(tokens: int) -> list[Any]:
    return [
        f"A simulated account of {tokens:,} tokens, which is read over HTTP each night.\n"
        "The nights are simulated, the syncs are real and run now: times of tokens are in\n"
        "those nights, times of the warehouse are now. The cover {(,)} is everything:\n"
        "no token that was listed throughout the run can be missing.\n",
        NIGHT_LINE.format(
            "run",
            "night",
            "tokens",
            "new",
            "changed",
            "absent",
            "relisted",
            "requests",
            "seconds",
            "cover",
        ),
    ]


def _night_line(night: Night) -> str:
    what = f"{night.at:%a %d %b}" + ("" if night.night else " *")
    line = NIGHT_LINE.format(
        night.run_id,
        what,
        f"{night.tokens:,}",
        f"{night.new:,}",
        f"{night.changed:,}",
        f"{night.absent:,}",
        f"{night.relisted:,}",
        f"{night.requests:,}",
        f"{night.seconds:.1f}",
        night.coverage,
    )
    return line if night.night else f"{line}\n     * the first load"


def _answer(answer: Answer) -> list[Any]:
    from rich.text import Text

    from etl.cli.tables import rows_table
    from etl.process.log import printable

    query = "\n".join("    " + printable(line) for line in answer.sql.splitlines())
    table = rows_table("", answer.rows[:ROWS_SHOWN])
    more = len(answer.rows) - ROWS_SHOWN
    parts: list[Any] = [
        Text(f"-- {answer.question}", style="bold"),
        Text(f"   sql/queries/{answer.file}", style="dim"),
        Text(query, style="dim"),
        table if answer.rows else "    (no rows)",
    ]
    if more > 0:
        parts.append(f"and {more} more")
    if answer.note and answer.rows:
        parts.append(answer.note)
    return parts


def _what_next(schema: str, answers: list[Answer]) -> list[Any]:
    import etl

    checkout = (Path(etl.__file__).resolve().parents[1] / "dev").is_file()
    program = "./dev run" if checkout else "kaltura-etl"
    lines = [f"The warehouse stays in schema {schema} until the next demo. Next steps:", ""]
    if checkout:
        lines += [
            f"    PGOPTIONS='-c search_path={schema}' ./dev psql",
            "        \\d+ upload_token_history",
        ]
        asked = next(answer for answer in answers if answer.variables)
        lines += [f"        \\set {name} {value}" for name, value in asked.variables.items()]
        lines += [f"        \\i sql/queries/{asked.file}"]
        lines += ["    docs/howto/ask.md has more questions, and how to read the answers"]
    lines += [
        f"    {program} status --schema {schema}",
        f"    {program} verify --schema {schema}",
        "",
        "A real account (README.md says what goes into the file):",
        "",
        f"    VARIABLE_FILE=~/account.env {program} check",
        f"    VARIABLE_FILE=~/account.env {program} sync",
    ]
    return ["\n".join(lines)]
