"""What those who watch the runs are told of one that has ended: metrics file and notice."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from etl.cli.run_ended import RunFacts
from etl.cli.runtime import Runtime
from etl.errors import EtlError, Interrupted, WarehouseUnavailable
from etl.process.log import exception_text
from etl.settings.table import Settings

if TYPE_CHECKING:
    from etl.process.metrics import RunFigures, WarehouseState

log = logging.getLogger("etl.cli")

EVERYTHING: Final = "{(,)}"
"""The coverage of a complete run, but for what the service could not return."""
CHANGES: Final = (
    *("inserted", "changed", "absent", "relisted", "unchanged", "rejected", "unreadable"),
)
OUTCOMES: Final = ("succeeded", "refused", "failed", "skipped")
"""How an account of a job can end; one that had published with the job's label has succeeded."""


@contextmanager
def harmless(complaint: str) -> Iterator[None]:
    """What is done stays done: nothing that fails in the block changes how the run ends."""
    try:
        yield
    except Exception as error:
        reason = error.message if isinstance(error, EtlError) else exception_text(error)
        log.warning(complaint, extra={"reason": reason})


@contextmanager
def asking_warehouse(settings: Settings, facts: RunFacts) -> Iterator[None]:
    """Ask the warehouse what is known after the run that the block does, while it is open."""
    try:
        yield
    except Exception as error:
        facts.state = state_after(settings, facts, error)
        raise
    facts.state = state_after(settings, facts, None)


def state_after(
    settings: Settings, facts: RunFacts, error: Exception | None
) -> WarehouseState | None:
    """What the warehouse says after a run of this account, for its metrics.

    None if there are none to write, and if the warehouse is not to be asked: the run did not get
    that far, the warehouse fails, or the run is to end at once.
    """
    if settings.metrics_file is None or facts.dry_run or facts.figures.counters is None:
        return None
    if isinstance(error, WarehouseUnavailable | Interrupted):
        return None
    with harmless("the warehouse could not be asked for the metrics"):
        from etl.warehouse.read.metrics import warehouse_state

        return warehouse_state(
            str(settings.database_url), settings.schema, settings.require_partner_id()
        )
    return None


def conclude(
    runtime: Runtime,
    error: BaseException | None,
    event: Mapping[str, Any],
    message: str | None = None,
) -> None:
    """Tell how this call ended; it never raises.  ``event``: the keys of ``run ended``."""
    write_metrics_of(runtime, error, event["exit_code"])
    with harmless("the notice could not be posted"):
        _notify(runtime, event, message)


def _notify(runtime: Runtime, event: Mapping[str, Any], message: str | None) -> None:
    """Post one notice, of a job of many accounts as well."""
    settings, accounts = runtime.settings, runtime.run_facts.accounts
    if settings is None or settings.notify_url is None:
        return
    from etl.notify import is_wanted, notice_of, post_notice

    if is_wanted(settings.notify, event, accounts):
        post_notice(
            settings.notify_url,
            notice_of(event, message, accounts),
            use_environment_proxies=settings.use_environment_proxies,
        )


def write_metrics_of(runtime: Runtime, error: BaseException | None, exit_code: int) -> None:
    """Write how this call ended, as a run of its account or as a job of many."""
    facts, settings = runtime.run_facts, runtime.settings
    if settings is None or settings.metrics_file is None:
        return
    if facts.is_job or runtime.partner_id is None:
        # All of these would be alike where the files of several jobs are read together.
        account = {"partner_id": "", "file": settings.metrics_file.name}
    else:
        account = {"partner_id": str(runtime.partner_id)}
    write_account_metrics(settings.metrics_file, account, facts, error, exit_code)


def write_account_metrics(
    path: Path,
    account: Mapping[str, str],
    facts: RunFacts,
    error: BaseException | None,
    exit_code: int,
) -> None:
    """Write how the run of an account ended; without a partner id, only that one has.

    A dry run is no run: it writes nothing.
    """
    if facts.dry_run:
        return
    with harmless("the metrics file could not be written"):
        from etl.process.metrics import Attempt, write_metrics

        attempt = Attempt(
            account=account,
            mode=str(facts.mode),
            exit_code=exit_code,
            run=_figures(facts, error) if account["partner_id"] else None,
            state=facts.state,
            accounts=_outcomes(facts),
        )
        write_metrics(path, attempt)


def _outcomes(facts: RunFacts) -> dict[str, int]:
    """How many accounts of a job ended in each way, also in none; empty if none has ended."""
    found = Counter(str(each["status"]) for each in facts.accounts)
    return {outcome: found[outcome] for outcome in OUTCOMES} if found else {}


def _figures(facts: RunFacts, error: BaseException | None) -> RunFigures:
    from etl.process.metrics import RunFigures

    event: dict[str, Any] = facts.event(error)
    mode, published_at = str(event["mode"]), event["published_at"]
    if facts.state is None:
        is_complete = event["coverage"] == EVERYTHING
    else:
        is_complete = facts.state.complete_at.get(mode) == published_at
    return RunFigures(
        stage_seconds=event["stage_seconds"],
        changes={name: event[name] or 0 for name in CHANGES},
        requests=event["requests"] or 0,
        retries=event["retries"] or 0,
        mode=mode,
        published_at=published_at,
        is_complete=published_at is not None and is_complete,
    )
