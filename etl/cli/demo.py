"""``kaltura-etl demo``."""

from __future__ import annotations

import dataclasses

import click

from etl.cli.options import log_options, pass_runtime
from etl.cli.runtime import Runtime

DEMO_SCHEMA = "kaltura_demo"


@click.command()
@click.option(
    "--nights", type=click.IntRange(2, 60), default=7, show_default=True, help="Nights to live."
)
@click.option(
    "--tokens",
    type=click.IntRange(100, 1_000_000),
    default=5_000,
    show_default=True,
    help="Tokens of the account when it begins.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Another seed, another account."
)
@log_options
@pass_runtime
def demo(runtime: Runtime, nights: int, tokens: int, seed: int) -> None:
    """Let a simulated account live through a week of nights.

    Each night is synced into the embedded Postgres, schema kaltura_demo, whatever DATABASE_URL
    says; then a few questions of analysts are answered on screen.
    """
    settings = runtime.start()
    runtime.stop.install()
    from rich.console import Console

    from etl.cli.database import open_warehouse
    from etl.demo import run_demo

    # A demonstration must never write into a real warehouse, nor be mixed with real data.
    own = dataclasses.replace(settings, database_url=None, schema=DEMO_SCHEMA)
    with open_warehouse(own, create=True) as opened:
        run_demo(
            opened,
            nights=nights,
            tokens=tokens,
            seed=seed,
            stop=runtime.stop,
            console=Console(highlight=False, emoji=False),
        )
