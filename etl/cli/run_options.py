"""Options of the commands that run: ``sync`` and ``backfill``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from etl.settings.values import duration

DAY_SECONDS = 86_400


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """``90s``, ``15m``, ``6h``, ``7d``; a plain number is seconds."""

    name = "duration"

    def __init__(self, most_seconds: float = 366 * DAY_SECONDS) -> None:
        self._parse = duration(0, most_seconds)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            return self._parse(str(value).strip())
        except ValueError as exc:
            self.fail(f"{exc}.", param, ctx)


def _seconds(context: click.Context, parameter: click.Parameter, value: timedelta) -> float:
    del context, parameter
    return value.total_seconds()


wait_option = click.option(
    "--wait",
    "wait_seconds",
    type=DurationType(),
    default=timedelta(0),
    metavar="SECONDS",
    callback=_seconds,
    help="Wait so long for another run to end, instead of exit code 75 at once. [default 0]",
)
