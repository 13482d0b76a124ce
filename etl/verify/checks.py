"""``kaltura-etl verify``: looks for rows that break an invariant, and derives certificates again.

The checks are the files in ``sql/checks/``: each selects the rows that break one invariant, so none
when all is well.  The certificates are derived a second time, in Python, from the pages
(``etl.verify.certificates``), and the digests from the stored columns
(``etl.warehouse.load.digests``); ``--source`` asks the service itself (``etl.verify.source``).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from etl.errors import EtlError
from etl.process.stop import Stop
from etl.verify.certificates import certificate_breaches
from etl.warehouse.load.digests import known_accounts, wrong_digests, wrong_fingerprints
from etl.warehouse.read.checks import NOT_ON_A_STANDBY, check_files, run_check
from etl.warehouse.read.published import anything_published, last_published_runs
from etl.warehouse.schema.database import Database, open_database, require_current_schema

log = logging.getLogger(__name__)

ROWS_SHOWN: Final = 20
CERTIFICATES: Final = "certificates"
CERTIFICATES_DERIVED: Final = 20
DIGESTS: Final = "digests"
INTERVALS_DERIVED: Final = 20


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found: at most ``ROWS_SHOWN`` rows, and how many there are in all."""

    name: str
    purpose: str
    ok: bool
    rows: list[dict[str, Any]]
    total: int
    skipped: str | None = None
    """Why it was not made; then ``ok`` means nothing."""


def verify(
    url: str,
    schema: str = "kaltura",
    *,
    partner_id: int | None = None,
    stop: Stop | None = None,
) -> list[CheckResult]:
    """Run every check, for one account or for all; changes nothing.

    Each check reads one snapshot of its own, so a run may publish meanwhile.

    Raises:
        ConfigurationError: the schema is not of this program's version.
        Interrupted: ``stop`` was requested.
    """
    results = []
    check = (stop or Stop()).check
    with open_database(url, schema) as database:
        require_current_schema(database)
        if not anything_published(database, partner_id):
            log.warning(
                "no run has published: there was nothing to check", extra={"partner_id": partner_id}
            )
        for path in check_files():
            check()
            text = path.read_text(encoding="utf-8")
            purpose = text.partition("\n")[0].removeprefix("--").strip()
            try:
                rows, total = run_check(database, text, partner_id=partner_id, rows_max=ROWS_SHOWN)
            except EtlError as error:
                if error.fields.get("reason") != NOT_ON_A_STANDBY:
                    raise
                log.warning("not checked: %s: %s", path.stem, error.message)
                results.append(CheckResult(path.stem, purpose, True, [], 0, error.message))
            else:
                results.append(CheckResult(path.stem, purpose, total == 0, rows, total))
        found = [
            breach
            for run in last_published_runs(database, partner_id, CERTIFICATES_DERIVED)
            for breach in certificate_breaches(run)
        ]
        wrong = list(_digest_breaches(database, partner_id, check))
    for name, purpose, rows in (
        (
            CERTIFICATES,
            "The certificates of the last published runs follow from their pages.",
            found,
        ),
        (DIGESTS, "The digests of tokens, and of random intervals, are those of columns.", wrong),
    ):
        results.append(CheckResult(name, purpose, not rows, rows[:ROWS_SHOWN], len(rows)))
    return results


def _digest_breaches(
    database: Database, partner_id: int | None, check: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Tokens and intervals whose digests do not follow from the stored columns."""
    for account in [partner_id] if partner_id is not None else known_accounts(database):
        yield from wrong_digests(database, account, check=check)
        yield from wrong_fingerprints(
            database, account, intervals=INTERVALS_DERIVED, seed=secrets.randbits(32)
        )
