"""The service of the settings: its address, and a session with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from etl.kaltura.client import utc_now
from etl.kaltura.request_rate import RequestRate, request_rate
from etl.kaltura.retry import BUDGET_EXTRA, Counters
from etl.kaltura.service import Credentials, RetryLimits, ServiceSettings, open_service
from etl.process.stop import Stop
from etl.settings.table import Settings

if TYPE_CHECKING:
    from etl.kaltura.in_flight import RequestLimit
    from etl.kaltura.upload_token import UploadTokens


def service_address(url: str) -> str:
    """The address by which the ledger knows a service: equal for every way to write the same one.

    Scheme, host, port and path; ``url`` is a checked setting, which has no credentials.
    """
    parts = urlsplit(url)
    host = str(parts.hostname)  # in lower case
    host = f"[{host}]" if ":" in host else host
    is_usual = parts.port in (None, {"http": 80, "https": 443}[parts.scheme])
    return f"{parts.scheme}://{host}{'' if is_usual else f':{parts.port}'}{parts.path.rstrip('/')}"


def open_upload_tokens(
    settings: Settings,
    stop: Stop,
    *,
    clock: Callable[[], datetime] = utc_now,
    counters: Counters | None = None,
    in_flight: RequestLimit | None = None,
    rate: RequestRate | None = None,
    patient: bool = True,
) -> UploadTokens:
    """Log in; raises ConfigurationError, CredentialsRefused, ServiceUnavailable, Interrupted.

    ``counters`` knows what was sent also if the login fails.  ``rate`` is the one of a job of
    several runs; None: one as the settings say.  Without ``patient``, a service that has not
    answered yet gets one attempt.
    """
    credential = settings.credential()
    return open_service(
        settings.service_url,
        Credentials(
            partner_id=settings.require_partner_id(),
            app_token_id=credential.app_token_id,
            # The client chooses by which secret is set, so only the chosen one is passed.
            **{credential.kind: credential.secret},
        ),
        stop=stop,
        clock=clock,
        counters=counters,
        in_flight=in_flight,
        rate=rate or request_rate(settings.requests_per_second),
        settings=ServiceSettings(
            retry=RetryLimits(
                attempts=settings.retry_attempts,
                attempts_unanswered=None if patient else 1,
                total_seconds=settings.retry_total_seconds,
                request_seconds=settings.request_timeout_seconds,
                # An outage hits all requests in flight; each may use up its attempts.
                budget_extra=BUDGET_EXTRA + settings.retry_attempts * settings.concurrency,
            ),
            use_environment_proxies=settings.use_environment_proxies,
            ca_file=settings.ca_file,
            app_token_hash=credential.app_token_hash,
            worded=settings.worded,
        ),
    )
