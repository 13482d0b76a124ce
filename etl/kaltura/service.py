"""The entry point: settings of the client, and ``open_service``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from etl.kaltura.calls import Calls
from etl.kaltura.client import KalturaClient, utc_now
from etl.kaltura.in_flight import RequestLimit
from etl.kaltura.login import Credentials, choose_login
from etl.kaltura.request_rate import RequestRate
from etl.kaltura.retry import Counters, RetryLimits, RetryPolicy
from etl.kaltura.session import Sessions
from etl.kaltura.upload_token import Probe, UploadTokens
from etl.process.secrets import Scrubber
from etl.process.stop import Stop

__all__ = ["Credentials", "Probe", "RetryLimits", "ServiceSettings", "UploadTokens", "open_service"]


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The settings of the client."""

    retry: RetryLimits = field(default_factory=RetryLimits)
    use_environment_proxies: bool = False
    ca_file: Path | None = None
    """A PEM file of authorities to trust instead of the system's."""
    app_token_hash: str | None = None
    """SHA1, SHA256, SHA512 or MD5; None tries them in that order at the first login."""
    worded: Callable[[str], str] = str
    """Messages of failed attempts, in the words of whoever made the settings."""


def open_service(
    service_url: str,
    credentials: Credentials,
    *,
    stop: Stop,
    clock: Callable[[], datetime] = utc_now,
    settings: ServiceSettings | None = None,
    counters: Counters | None = None,
    in_flight: RequestLimit | None = None,
    rate: RequestRate | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] | None = None,
) -> UploadTokens:
    """Log in and return the reader of upload tokens; its session is verified to be of admin type.

    ``clock`` gives aware UTC times.  ``counters`` counts the requests of the login as well, even if
    it fails; ``in_flight`` and ``rate`` are limits that other runs may share.  ``sleep`` and
    ``monotonic`` are for tests; without ``sleep``, waiting ends when a stop is requested.  Raises
    ConfigurationError, CredentialsRefused, ServiceUnavailable or Interrupted.
    """
    settings = settings or ServiceSettings()
    login = choose_login(credentials, app_token_hash=settings.app_token_hash)
    scrubber = Scrubber()
    scrubber.add(credentials.app_token, credentials.admin_secret, credentials.ks)
    client = KalturaClient(
        service_url,
        clock=clock,
        stop=stop,
        scrubber=scrubber,
        ca_file=settings.ca_file,
        use_environment_proxies=settings.use_environment_proxies,
    )
    policy = RetryPolicy(
        settings.retry,
        stop,
        counters=counters,
        in_flight=in_flight,
        rate=rate,
        worded=settings.worded,
        sleep=sleep,
        monotonic=monotonic,
    )
    calls = Calls(client, policy, monotonic)
    sessions = Sessions(calls, login)
    try:
        sessions.current()
    except BaseException:
        client.close()
        raise
    return UploadTokens(sessions, calls)
