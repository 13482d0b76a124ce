"""``kaltura-etl verify``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.errors import DataRefused, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etl.verify.checks import CheckResult

log = logging.getLogger("etl.cli")
SAMPLE_MAX = 100_000
SEED_MAX = 2**63 - 1


@click.command()
@click.option(
    "--source",
    "sample",
    type=click.IntRange(1, SAMPLE_MAX),
    metavar="N",
    help="Also look N known tokens up in the service, and compare.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, SEED_MAX),
    metavar="N",
    help="Sample the same tokens as the run that printed this seed.",
)
@setting_options("partner_id", "service_url", "schema")
@json_option
@log_options
@pass_runtime
def verify(runtime: Runtime, sample: int | None, seed: int | None) -> None:
    """Check the invariants and re-derive the certificates of completeness.

    Each check looks for rows that must not exist; the exit code is 65 if one finds any.  With
    --source, randomly chosen tokens are looked up by id: half of them recorded as listed, half as
    absent.  Changes since the last run are no violations.
    """
    if seed is not None and sample is None:
        raise UsageError("--seed requires --source.")
    settings = runtime.start()
    if sample is not None:
        settings.credential()
        settings.require_partner_id()
    runtime.stop.install()
    from etl.cli.database import open_warehouse

    with open_warehouse(settings, create=False) as opened:
        from etl.verify.checks import verify as verify_warehouse

        compared = None
        if sample is not None:
            from etl.verify.source import verify_source

            compared = verify_source(opened, sample=sample, seed=seed, stop=runtime.stop)
        results = verify_warehouse(
            str(opened.database_url),
            opened.schema,
            partner_id=opened.partner_id,
            stop=runtime.stop,
        )
    if compared is not None:
        results.append(compared.check())
    failed = [each for each in results if not each.ok]
    failure = None
    if failed:
        failure = DataRefused(
            f"{len(failed)} of {len(results)} checks failed: "
            f"{', '.join(each.name for each in failed)}; the result has the rows.",
            reason="verify",
        )
    runtime.print_result(
        {
            "checks": [dataclasses.asdict(each) for each in results],
            "source": None if compared is None else compared.facts(),
        },
        *_tables(results, None if compared is None else compared.facts()),
        failure=failure,
    )
    if failure is not None:
        raise failure


def _tables(
    results: list[CheckResult], compared: Mapping[str, object] | None
) -> list[RenderableType]:
    from etl.cli.tables import facts_table, rows_table

    overview = [
        {
            "result": "not checked" if each.skipped else "ok" if each.ok else "FAILED",
            "check": each.name,
            "rows": each.total,
            "purpose": each.purpose,
        }
        for each in results
    ]
    tables = [rows_table("", overview, shown=len(overview))]
    if compared is not None:
        tables.append(facts_table("Tokens read again from the service", compared))
    tables += [
        rows_table(f"{each.name}: {each.purpose}", each.rows, total=each.total)
        for each in results
        if not each.ok
    ]
    return tables
