"""``kaltura-etl verify --source N``: reads a sample of tokens from the service and compares.

Half of the sample is recorded as listed, half as absent (as far as there are any).  What changed
or disappeared since the last run is no breach; any other difference is one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from etl.run.audit import ABSENCE_BRAKE, ABSENCES_ALWAYS_ALLOWED
from etl.run.fetch import LOOKUP_IDS_AT_MOST, Fetcher, suppress
from etl.run.service import open_upload_tokens
from etl.tokens.page import Page
from etl.tokens.token import Token
from etl.verify.checks import ROWS_SHOWN, CheckResult
from etl.warehouse.load.observations import newest_of_each
from etl.warehouse.privacy.erase import load_suppression
from etl.warehouse.read.sample import Compared, compare_sample, sample_tokens
from etl.warehouse.schema.database import open_database, require_current_schema

if TYPE_CHECKING:
    from etl.process.stop import Stop
    from etl.settings.table import Settings
    from etl.warehouse.schema.database import Database

NAME: Final = "source"
CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far the service's clock, which stamps updated_at, may be behind the database's."""
SEEDS: Final = 2**31


@dataclass(slots=True)
class SourceComparison:
    """The outcome of the sample."""

    seed: int
    """The same seed chooses the same tokens."""
    listed: int = 0
    """Tokens asked for that are recorded as listed."""
    absent: int = 0
    """Tokens asked for that are recorded as absent."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """``same``, ``moved_on`` (changed since), ``gone`` (not listed any more), ``relisted``,
    ``not_comparable`` (the service fails on the row, or not all of it can be loaded) and
    ``breach``."""
    breaches: list[dict[str, Any]] = field(default_factory=list)

    def check(self) -> CheckResult:
        """As one more row of what ``verify`` found."""
        return CheckResult(
            NAME,
            "Sampled tokens are at the service as they are stored, but for what changed since.",
            not self.breaches,
            self.breaches[:ROWS_SHOWN],
            len(self.breaches),
        )

    def facts(self) -> dict[str, int]:
        """For people and for ``--json``."""
        return {
            "seed": self.seed,
            "listed": self.listed,
            "absent": self.absent,
            **{name: self.outcomes[name] for name in OUTCOMES},
        }


OUTCOMES: Final = ("same", "moved_on", "gone", "relisted", "not_comparable", "breach")


def verify_source(
    settings: Settings, *, sample: int, seed: int | None, stop: Stop
) -> SourceComparison:
    """Compare ``sample`` known tokens with the service; ``settings.database_url`` must be set.

    Raises ConfigurationError, CredentialsRefused, ServiceUnavailable, WarehouseUnavailable,
    DataRefused (a page that cannot be trusted) or Interrupted.
    """
    partner_id = settings.require_partner_id()
    chosen = random.randrange(SEEDS) if seed is None else seed  # noqa: S311 - a sample, no secret
    result = SourceComparison(chosen)
    with open_database(str(settings.database_url), settings.schema) as database:
        require_current_schema(database)
        ids = _choose(database, partner_id, sample, result)
        with (
            open_upload_tokens(settings, stop) as tokens,
            Fetcher(tokens, partner_id=partner_id, concurrency=1) as fetcher,
        ):
            for begin in range(0, len(ids), LOOKUP_IDS_AT_MOST):
                stop.check()
                judged = _ask(database, settings, fetcher, ids[begin : begin + LOOKUP_IDS_AT_MOST])
                doubtful = [each.token_id for each in judged.values() if each.outcome == "breach"]
                if doubtful:
                    # What a run or an erasure has written since the service answered looks like
                    # a breach: the warehouse was ahead of the answer.  Such a one does not last.
                    judged |= _ask(database, settings, fetcher, doubtful)
                result.outcomes.update(each.outcome for each in judged.values())
                result.breaches += [each.told for each in judged.values() if each.told is not None]
    _judge_gone(result, partner_id)
    return result


def _choose(
    database: Database, partner_id: int, sample: int, result: SourceComparison
) -> list[str]:
    """Half of them absent; fewer if there are not as many, and then more of the listed."""
    absent = sample_tokens(
        database, partner_id, is_listed=False, size=sample // 2, seed=result.seed
    )
    listed = sample_tokens(
        database, partner_id, is_listed=True, size=sample - len(absent), seed=result.seed
    )
    result.listed, result.absent = len(listed), len(absent)
    return sorted(absent + listed)


class _Judged(NamedTuple):
    token_id: str
    outcome: str
    told: dict[str, Any] | None = None
    """Of a breach: what ``verify`` shows."""


def _ask(
    database: Database, settings: Settings, fetcher: Fetcher, ids: list[str]
) -> dict[str, _Judged]:
    """Compare at most ``LOOKUP_IDS_AT_MOST`` known tokens with the service's answer; by id."""
    partner_id = settings.require_partner_id()
    answer = fetcher.look_up(ids)
    # After the answer: a user erased meanwhile is suppressed in both or in neither.
    suppression = load_suppression(database, partner_id, settings.erasure_key)
    pages = [suppress(page, suppression) for page in answer.pages]
    listed = _newest(pages)
    rejected = {each.token_id for page in pages for each in page.rejected}
    rejected |= {page.tokens.token_ids[index] for page in pages for index in page.tokens.untold}
    no_use = {*answer.unreadable, *(rejected - listed.keys())}
    return {
        each.token_id: _Judged(each.token_id, "not_comparable")
        if each.token_id in no_use
        else _judge(partner_id, each, listed.get(each.token_id))
        for each in compare_sample(database, partner_id, ids, list(listed.values()))
    }


def _newest(pages: Sequence[Page]) -> dict[str, Token]:
    """One whole row of each id, by the rules of the loader."""
    whole = []
    for page in pages:
        kept = [at for at in range(len(page.tokens)) if at not in page.tokens.untold]
        tokens, raw = page.tokens.take(kept), [page.raw[at] for at in kept]
        whole.append(replace(page, tokens=tokens, raw=raw))
    return {seen.token.token_id: seen.token for seen in newest_of_each(whole)[0]}


def _judge(partner_id: int, known: Compared, served: Token | None) -> _Judged:
    if served is None:
        return _Judged(known.token_id, "gone" if known.is_listed else "same")
    if known.is_listed and not known.differing:
        return _Judged(known.token_id, "same")
    if _changed_since(served, known.witnessed_at):
        return _Judged(known.token_id, "moved_on" if known.is_listed else "relisted")
    columns = known.differing if known.is_listed else ("is_listed",)
    told = {
        "partner_id": partner_id,
        "token_id": known.token_id,
        "version": known.version,
        "run_id": known.run_id,
        "breach": "differs" if known.is_listed else "listed, but recorded as absent",
        "columns": list(columns),
        "stored": {name: known.stored.get(name, known.is_listed) for name in columns},
        "served": {name: _served(served, name) for name in columns},
        "updated_at": served.updated_at,
        "witnessed_at": known.witnessed_at,
    }
    return _Judged(known.token_id, "breach", told)


def _changed_since(served: Token, witnessed_at: datetime) -> bool:
    """Whether the service saved the token after it was last seen as it is stored.

    Every change of a token sets updatedAt, except the deletion of its user, which no comparison
    shows.
    """
    saved_at = served.updated_at or served.created_at
    return saved_at.astimezone(UTC) >= witnessed_at - CLOCK_SKEW


def _served(token: Token, name: str) -> object:
    if name == "is_listed":
        return True
    if name == "extra":
        return None if token.extra is None else msgspec.json.decode(token.extra)
    return getattr(token, name)


def _judge_gone(result: SourceComparison, partner_id: int) -> None:
    """A token that disappears leaves no date: more of them than the brake allows are a breach.

    Causes are a wrong account, or absences that no run has recorded for long.
    """
    gone = result.outcomes["gone"]
    if gone > max(ABSENCES_ALWAYS_ALLOWED, ABSENCE_BRAKE * result.listed):
        result.outcomes["breach"] += 1
        result.breaches.append(
            {
                "partner_id": partner_id,
                "breach": "more tokens are gone than one run may take away",
                "gone": gone,
                "listed": result.listed,
            }
        )
