# ruff: noqa: RUF009 - _setting returns dataclasses.field, which is what ruff asks for
"""Every setting: its name, default, parser and purpose, in one table."""

from __future__ import annotations

import dataclasses
import re
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
    """What help texts, documentation and ``check`` show of a setting."""

    name: str
    """Name of the environment variable."""
    purpose: str
    parse: Callable[[str], object]
    secret: bool
    field_name: str = ""
    default: object = None

    @property
    def flag(self) -> str:
        """The command-line option, in the commands that have it."""
        bare = self.name.removeprefix("ETL_").removeprefix("KALTURA_")
        return "--" + bare.lower().replace("_", "-")

    def text(self, value: object) -> str:
        """The value as it may be shown: secrets as ***."""
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
    # repr=False for all secrets: a Settings in a log line or a traceback must not show them.
    made: T = field(default=default, repr=not secret, metadata={_METADATA_KEY: description})
    return made


@dataclass(frozen=True, slots=True)
class Credential:
    """The credential with which the session is opened."""

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
        "Partner id: the number of the Kaltura account.",
    )
    app_token_id: str | None = _setting(
        None, "KALTURA_APP_TOKEN_ID", values.secret, "Id of the app token (recommended)."
    )
    app_token: str | None = _setting(
        None, "KALTURA_APP_TOKEN", values.secret, "The app token itself.", secret=True
    )
    app_token_hash: str | None = _setting(
        None,
        "KALTURA_APP_TOKEN_HASH",
        values.one_of("MD5", "SHA1", "SHA256", "SHA512"),
        "Hash type of the app token; if unset, each type is tried.",
    )
    admin_secret: str | None = _setting(
        None,
        "KALTURA_ADMIN_SECRET",
        values.secret,
        "The account's admin secret; sessions are created locally.",
        secret=True,
    )
    ks: str | None = _setting(
        None,
        "KALTURA_KS",
        values.secret,
        "An existing session of admin type; it cannot be renewed.",
        secret=True,
    )
    database_url: str | None = _setting(
        None,
        "DATABASE_URL",
        values.database_url,
        "URL of the warehouse, postgresql://…; if unset, an embedded Postgres (ETL_EMBEDDED).",
        secret=True,
    )
    embedded: str = _setting(
        "auto",
        "ETL_EMBEDDED",
        values.one_of("auto", "yes", "no"),
        "Whether the embedded Postgres may stand in for DATABASE_URL; auto: at a terminal.",
    )
    schema: str = _setting(
        "kaltura", "ETL_SCHEMA", values.schema_name, "Schema of all tables and views."
    )
    data_dir: Path | None = _setting(
        None,
        "ETL_DATA_DIR",
        values.file_path,
        "Directory of the embedded Postgres; if unset, in the user's data directory.",
    )
    concurrency: int = _setting(
        4, "ETL_CONCURRENCY", values.whole_number(1, 32), "Concurrent requests for pages."
    )
    accounts_file: Path | None = _setting(
        None,
        "ETL_ACCOUNTS",
        values.file_path,
        "File of the accounts of a job; if unset, accounts.toml in the working directory.",
    )
    accounts_at_once: int = _setting(
        4,
        "ETL_ACCOUNTS_AT_ONCE",
        values.whole_number(1, 32),
        "Accounts of a job that are read at the same time; ETL_CONCURRENCY is for all of them.",
    )
    page_size: int = _setting(
        500,
        "ETL_PAGE_SIZE",
        values.whole_number(1, 500),
        "Tokens per page; the service returns at most 500.",
    )
    requests_per_second: float | None = _setting(
        None,
        "ETL_REQUESTS_PER_SECOND",
        values.number(0.01, 1000),
        "Requests that begin per second at most, in the whole job; if unset, there is no limit.",
    )
    request_timeout_seconds: float = _setting(
        60.0,
        "ETL_REQUEST_TIMEOUT_SECONDS",
        values.plain_seconds(1, 3600),
        "Deadline of one request, from connecting to the last byte.",
    )
    retry_attempts: int = _setting(
        6, "ETL_RETRY_ATTEMPTS", values.whole_number(1, 100), "Attempts per request."
    )
    retry_total_seconds: float = _setting(
        300.0,
        "ETL_RETRY_TOTAL_SECONDS",
        values.plain_seconds(0, 86400),
        "Time limit of all attempts at one request together.",
    )
    use_environment_proxies: bool = _setting(
        False,
        "ETL_USE_ENVIRONMENT_PROXIES",
        values.yes_or_no,
        "Use HTTPS_PROXY, NO_PROXY and related variables.",
    )
    ca_file: Path | None = _setting(
        None,
        "ETL_CA_FILE",
        values.file_path,
        "PEM file of certificate authorities to trust for the service instead of the system's.",
    )
    lease_seconds: float = _setting(
        900.0,
        "ETL_LEASE_SECONDS",
        values.plain_seconds(5, 86400),
        "A run without a heartbeat for this long may be taken over.",
    )
    resume_window: timedelta = _setting(
        timedelta(hours=6),
        "ETL_RESUME_WINDOW",
        values.duration(0, 7 * 86400),
        "A failed run that started within this time is resumed.",
    )
    publish_age_max: timedelta = _setting(
        timedelta(hours=6),
        "ETL_PUBLISH_AGE_MAX",
        values.duration(1, 7 * 86400),
        "Pages older than this are read again instead of being published.",
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
        "Rows that the service may fail to return, and seconds that may keep changing, before the "
        "run is refused.",
    )
    keep_pages_days: int = _setting(
        90,
        "ETL_KEEP_PAGES_DAYS",
        values.whole_number(1, 36500),
        "Days for which pages and rejected rows of runs are kept.",
    )
    erasure_key: str | None = _setting(
        None,
        "ETL_ERASURE_KEY",
        values.long_secret,
        "Key for pseudonyms, at least 32 characters; if unset, the warehouse stores one.",
        secret=True,
    )
    archive: str | None = _setting(
        None,
        "ETL_ARCHIVE",
        values.archive_address,
        "Directory, or s3://, gs:// or az:// URL, in which every accepted reply is archived.",
    )
    lake: str | None = _setting(
        None,
        "ETL_LAKE",
        values.archive_address,
        "Directory, or s3://, gs:// or az:// URL, of the Delta tables that export keeps and erase "
        "rewrites.",
    )
    metrics_file: Path | None = _setting(
        None,
        "ETL_METRICS_FILE",
        values.file_path,
        "File for Prometheus' textfile collector: the outcome of the last run.",
    )
    notify_url: str | None = _setting(
        None,
        "ETL_NOTIFY_URL",
        values.notify_url,
        "Address to which a notice of a run is posted: JSON, with a text for Slack.",
        secret=True,
    )
    notify: str = _setting(
        "failures",
        "ETL_NOTIFY",
        values.one_of("failures", "always"),
        "Of which runs a notice is posted; failures: those that failed or were refused.",
    )
    log_level: str = _setting(
        "INFO",
        "ETL_LOG_LEVEL",
        values.one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "Minimum level of the log.",
    )
    log_format: str = _setting(
        "auto",
        "ETL_LOG_FORMAT",
        values.one_of("auto", "text", "json"),
        "Format of the log; auto: text on a terminal, else one JSON object per line.",
    )
    sources: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where each field's value came from; a field that is not in it has its default."""
    account_place: str = ""
    """The table of ``accounts.toml`` that is one of the sources, for messages; empty: none is."""

    def worded(self, message: str) -> str:
        """The message, with the keys of ``accounts.toml`` for the settings that come from there.

        What is said of a setting, and so what to correct, is true of the key; the variable of the
        same meaning is not even read in a job of several accounts.
        """
        found = message
        for setting in SETTINGS.values():
            if self.account_place and self.sources.get(setting.field_name) == self.account_place:
                found = re.sub(rf"\b{setting.name}\b", setting.field_name, found)
        if found == message:
            return message
        text, stop = (found[:-1], ".") if found.endswith(".") else (found, "")
        return f"{text} ({self.account_place}){stop}"

    def credential(self) -> Credential:
        """The credential; ``ConfigurationError`` unless exactly one is set, and completely.

        Two are refused instead of ranked: a session left in the environment must not silently
        take precedence over (or yield to) the app token in the file.
        """
        if (self.app_token_id is None) != (self.app_token is None):
            missing, present = "KALTURA_APP_TOKEN_ID", "KALTURA_APP_TOKEN"
            if self.app_token is None:
                missing, present = present, missing
            raise ConfigurationError(
                f"{missing} is not set although {present} is: an app token requires both."
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
                "(or use --partner-id)."
            )
        return self.partner_id

    def secrets(self) -> tuple[str, ...]:
        """Every secret text, for the log's scrubber."""
        secrets = (self.app_token, self.admin_secret, self.ks, self.erasure_key)
        own = [value for value in secrets if value]
        if self.database_url is not None:
            own.extend(values.database_passwords(self.database_url))
        if self.notify_url is not None:
            own.extend(values.notify_secrets(self.notify_url))
        return tuple(own)


def _described(setting: dataclasses.Field[object]) -> Description:
    description: Description = setting.metadata[_METADATA_KEY]
    return dataclasses.replace(description, field_name=setting.name, default=setting.default)


SETTINGS: Mapping[str, Description] = {
    each.name: _described(each) for each in dataclasses.fields(Settings) if each.metadata
}
"""By name of the field of ``Settings``, in the order in which they are documented."""
