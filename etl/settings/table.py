# ruff: noqa: RUF009 - _setting returns dataclasses.field, which is what ruff asks for
"""Every setting: its name, default, parser and purpose, in one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from etl.errors import ConfigurationError
from etl.settings import values

T = TypeVar("T")

_METADATA_KEY = "setting"


@dataclass(frozen=True, slots=True)
class Description:
    """What is said about a setting in help texts, documents and ``check``."""

    name: str
    """Name of the environment variable."""
    purpose: str
    parse: Callable[[str], object]
    secret: bool
    field_name: str = ""
    default: object = None

    @property
    def flag(self) -> str:
        """The command-line option, for the commands that offer it."""
        bare = self.name.removeprefix("ETL_").removeprefix("KALTURA_")
        return "--" + bare.lower().replace("_", "-")

    def text(self, value: object) -> str:
        """The value as a person may see it: secrets as ***."""
        if value is None:
            return ""
        if self.field_name == "database_url":
            return values.masked_database_url(str(value))
        if self.secret:
            return "***"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, timedelta):
            return values.duration_text(value)
        return f"{value:g}" if isinstance(value, float) else str(value)


def _setting(
    default: T,
    name: str,
    parse: Callable[[str], object],
    purpose: str,
    *,
    secret: bool = False,
) -> T:
    description = Description(name, purpose, parse, secret)
    # repr=False for all secrets: a Settings in a log line or a traceback shows none of them.
    made: T = field(default=default, repr=not secret, metadata={_METADATA_KEY: description})
    return made


@dataclass(frozen=True, slots=True)
class Credential:
    """The one way in which the session is opened."""

    kind: str
    """``app_token``, ``admin_secret`` or ``ks``."""
    secret: str = field(repr=False)
    app_token_id: str | None = None
    app_token_hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked.  Durations are timedeltas, or floats in ``*_seconds``."""

    service_url: str = _setting(
        "https://www.kaltura.com",
        "KALTURA_SERVICE_URL",
        values.service_url,
        "Base address of the Kaltura service.",
    )
    partner_id: int | None = _setting(
        None,
        "KALTURA_PARTNER_ID",
        values.whole_number(1, 2**31 - 1),
        "Number of the Kaltura account.",
    )
    app_token_id: str | None = _setting(
        None, "KALTURA_APP_TOKEN_ID", values.secret, "Id of the app token (recommended way in)."
    )
    app_token: str | None = _setting(
        None, "KALTURA_APP_TOKEN", values.secret, "The app token itself.", secret=True
    )
    app_token_hash: str | None = _setting(
        None,
        "KALTURA_APP_TOKEN_HASH",
        values.one_of("MD5", "SHA1", "SHA256", "SHA512"),
        "Hash that the app token was made with; without it, each is tried.",
    )
    admin_secret: str | None = _setting(
        None,
        "KALTURA_ADMIN_SECRET",
        values.secret,
        "The account's admin secret: sessions are made on this machine.",
        secret=True,
    )
    ks: str | None = _setting(
        None,
        "KALTURA_KS",
        values.secret,
        "A ready session of admin type; it cannot be renewed.",
        secret=True,
    )
    database_url: str | None = _setting(
        None,
        "DATABASE_URL",
        values.database_url,
        "Address of the warehouse, postgresql://…; without it, an embedded Postgres.",
        secret=True,
    )
    schema: str = _setting(
        "kaltura", "ETL_SCHEMA", values.schema_name, "Schema that holds every table and view."
    )
    data_dir: Path | None = _setting(
        None,
        "ETL_DATA_DIR",
        values.file_path,
        "Folder of the embedded Postgres; without it, the user's data folder.",
    )
    concurrency: int = _setting(
        4, "ETL_CONCURRENCY", values.whole_number(1, 32), "Pages asked for at the same time."
    )
    page_size: int = _setting(
        500,
        "ETL_PAGE_SIZE",
        values.whole_number(1, 500),
        "Tokens a page; the service gives at most 500.",
    )
    request_timeout_seconds: float = _setting(
        60.0,
        "ETL_REQUEST_TIMEOUT_SECONDS",
        values.seconds(1, 3600),
        "Time for one whole request, first byte to last.",
    )
    retry_attempts: int = _setting(
        6, "ETL_RETRY_ATTEMPTS", values.whole_number(1, 100), "Attempts at one request."
    )
    retry_total_seconds: float = _setting(
        300.0,
        "ETL_RETRY_TOTAL_SECONDS",
        values.seconds(0, 86400),
        "Time for all attempts at one request together.",
    )
    use_environment_proxies: bool = _setting(
        False,
        "ETL_USE_ENVIRONMENT_PROXIES",
        values.yes_or_no,
        "Obey HTTPS_PROXY, NO_PROXY and their kin.",
    )
    ca_file: Path | None = _setting(
        None,
        "ETL_CA_FILE",
        values.file_path,
        "PEM file of authorities to trust for the service, instead of the system's.",
    )
    lease_seconds: float = _setting(
        900.0,
        "ETL_LEASE_SECONDS",
        values.seconds(5, 86400),
        "A run that gave no sign of life for so long may be taken over.",
    )
    resume_window: timedelta = _setting(
        timedelta(hours=6),
        "ETL_RESUME_WINDOW",
        values.duration(0, 7 * 86400),
        "A failed run that began within this time is resumed.",
    )
    publish_age_max: timedelta = _setting(
        timedelta(hours=6),
        "ETL_PUBLISH_AGE_MAX",
        values.duration(1, 7 * 86400),
        "No page older than this is published: it is read again.",
    )
    absence_grace: timedelta = _setting(
        timedelta(minutes=15),
        "ETL_ABSENCE_GRACE",
        values.duration(0, 7 * 86400),
        "A token younger than this is never declared absent.",
    )
    max_unreadable: int = _setting(
        10,
        "ETL_MAX_UNREADABLE",
        values.whole_number(0, 10**9),
        "Rows that the service cannot show before the run is refused.",
    )
    keep_pages_days: int = _setting(
        90,
        "ETL_KEEP_PAGES_DAYS",
        values.whole_number(1, 36500),
        "Days for which pages and rejected rows of old runs are kept.",
    )
    erasure_key: str | None = _setting(
        None,
        "ETL_ERASURE_KEY",
        values.long_secret,
        "Secret of at least 32 characters for who was erased; else the warehouse keeps one.",
        secret=True,
    )
    archive: str | None = _setting(
        None,
        "ETL_ARCHIVE",
        str,
        "Folder, or s3://, gs:// or az:// address, that keeps every accepted reply.",
    )
    metrics_file: Path | None = _setting(
        None,
        "ETL_METRICS_FILE",
        values.file_path,
        "File for Prometheus' text-file collector: how the last run ended.",
    )
    log_level: str = _setting(
        "INFO",
        "ETL_LOG_LEVEL",
        values.one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "Least level that is logged.",
    )
    log_format: str = _setting(
        "auto",
        "ETL_LOG_FORMAT",
        values.one_of("auto", "text", "json"),
        "Form of the log; auto: text on a terminal, else one JSON object a line.",
    )
    sources: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where each field's value came from; a field that is not in it has its default."""

    def credential(self) -> Credential:
        """The way in; ``ConfigurationError`` unless exactly one is set, and set completely.

        Two at once are refused instead of ranked: a session forgotten in the environment must
        not silently win over (or lose to) the app token in the file.
        """
        if (self.app_token_id is None) != (self.app_token is None):
            missing, present = "KALTURA_APP_TOKEN_ID", "KALTURA_APP_TOKEN"
            if self.app_token is None:
                missing, present = present, missing
            raise ConfigurationError(
                f"{missing} is not set although {present} is: an app token needs both."
            )
        found: list[Credential] = []
        if self.app_token is not None:
            found.append(
                Credential("app_token", self.app_token, self.app_token_id, self.app_token_hash)
            )
        if self.admin_secret is not None:
            found.append(Credential("admin_secret", self.admin_secret))
        if self.ks is not None:
            found.append(Credential("ks", self.ks))
        if len(found) == 1:
            return found[0]
        if not found:
            raise ConfigurationError(
                "No credential is set: set KALTURA_APP_TOKEN_ID and KALTURA_APP_TOKEN "
                "(recommended), or KALTURA_ADMIN_SECRET, or KALTURA_KS."
            )
        names = [
            f"KALTURA_{credential.kind.upper()} (from {self.sources.get(credential.kind)})"
            for credential in found
        ]
        raise ConfigurationError(f"More than one credential is set: {', '.join(names)}; keep one.")

    def require_partner_id(self) -> int:
        if self.partner_id is None:
            raise ConfigurationError(
                "KALTURA_PARTNER_ID is not set: set it to the number of your Kaltura account "
                "(or give --partner-id)."
            )
        return self.partner_id

    def secrets(self) -> tuple[str, ...]:
        """Every secret text, for the log's scrubber."""
        secrets = (self.app_token, self.admin_secret, self.ks, self.erasure_key)
        own = [value for value in secrets if value]
        if self.database_url is not None:
            own.extend(values.database_passwords(self.database_url))
        return tuple(own)


def _described(setting: dataclasses.Field[object]) -> Description:
    description: Description = setting.metadata[_METADATA_KEY]
    return dataclasses.replace(description, field_name=setting.name, default=setting.default)


SETTINGS: Mapping[str, Description] = {
    each.name: _described(each) for each in dataclasses.fields(Settings) if each.metadata
}
"""By name of the field of ``Settings``, in the order in which they are documented."""
