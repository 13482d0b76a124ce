"""Archives and exports in an object store, through ``obstore`` (the extra ``archive``).

Credentials come from the environment, as for the store's own tools: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL`` and so on, or the machine's role.
A put is atomic, so nothing has to be renamed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from etl.errors import ArchiveUnavailable, ConfigurationError, CredentialsRefused, EtlError

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Obstore

REQUEST_SECONDS: Final = 60
RETRIES_MAX: Final = 5
RETRY_SECONDS: Final = 180


def open_object_store(address: str, *, what: str = "archive") -> ObjectStore:
    """The store of an ``s3://``, ``gs://`` or ``az://`` address; sends no request yet."""
    try:
        # Imported here because it takes 16 ms, and is an optional extra.
        from obstore import exceptions, store  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"An {what} in an object store needs a library that is not installed: "
            "pip install 'kaltura-etl[archive]'."
        ) from error
    scheme = address.partition("://")[0]
    if scheme == "s3":
        _check_s3_variables()
    try:
        opened = store.from_url(
            address.rstrip("/"),
            client_options={
                "timeout": timedelta(seconds=REQUEST_SECONDS),
                "allow_http": is_plain(address),
            },
            retry_config={
                "max_retries": RETRIES_MAX,
                "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            },
        )
    except (exceptions.BaseError, ValueError, TypeError) as error:
        # The library's text may contain values from the environment.
        raise ConfigurationError(
            f"The {what}'s address {address} cannot be used: {type(error).__name__}. Check it, "
            f"and in the environment {_VARIABLES[scheme]}.",
            archive=address,
        ) from None
    return ObjectStore(address.rstrip("/"), opened, what=what)


def is_plain(address: str) -> bool:
    """Whether a store is asked over HTTP: a self-hosted one on the same machine or network seldom
    has a certificate; with http:// in the endpoint the operator accepts that."""
    return address.startswith("s3://") and _endpoint().startswith("http://")


class ObjectStore:
    """Objects under one address."""

    def __init__(self, address: str, opened: Obstore, *, what: str = "archive") -> None:
        self._address = address
        self._what = what
        self._store = opened

    @property
    def address(self) -> str:
        return self._address

    def folders(self, under: str) -> list[str]:
        return self._names(under, "common_prefixes")

    def files(self, folder: str) -> list[str]:
        return self._names(folder, "objects")

    def read(self, name: str) -> bytes | None:
        import obstore  # noqa: PLC0415

        try:
            return bytes(obstore.get(self._store, name).bytes())
        except (obstore.exceptions.NotFoundError, FileNotFoundError):
            return None
        except Exception as error:
            raise self.failure("read", error) from None

    def write(self, name: str, body: bytes) -> None:
        import obstore  # noqa: PLC0415

        try:
            obstore.put(self._store, name, body)
        except Exception as error:
            raise self.failure("written", error) from None

    def tidy(self, folder: str) -> None:
        """Nothing: a put is whole, or it is not there."""

    def delete(self, folder: str, *, but: Collection[str] = ()) -> int:
        import obstore  # noqa: PLC0415

        try:
            found = [each["path"] for each in obstore.list(self._store, f"{folder}/").collect()]
            doomed = [path for path in found if path.rpartition("/")[2] not in but]
            if doomed:
                obstore.delete(self._store, doomed)
        except Exception as error:
            raise self.failure("deleted", error) from None
        return len(doomed)

    def _names(self, under: str, what: str) -> list[str]:
        import obstore  # noqa: PLC0415

        prefix = f"{under}/" if under else None
        try:
            listed: Any = obstore.list_with_delimiter(self._store, prefix)
        except Exception as error:
            raise self.failure("listed", error) from None
        paths = [each if isinstance(each, str) else each["path"] for each in listed[what]]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def failure(self, what: str, error: Exception) -> EtlError:
        """Translate an error of the library, whose texts contain addresses, headers and bodies."""
        from obstore import exceptions  # noqa: PLC0415

        scheme = self._address.partition("://")[0]
        text = str(error)
        if isinstance(error, exceptions.PermissionDeniedError | PermissionError):
            meaning = _DENIED
        elif isinstance(error, exceptions.UnauthenticatedError):
            meaning = _NO_CREDENTIALS
        elif isinstance(error, exceptions.NotFoundError | FileNotFoundError):
            meaning = _NO_BUCKET
        else:
            meaning = next((each for each in _MEANINGS if re.search(each.pattern, text)), _UNKNOWN)
        endpoint = _endpoint() if scheme == "s3" else ""
        said = meaning.said.format(
            variables=_VARIABLES[scheme],
            store=f"the object store at {urlsplit(endpoint).hostname}"
            if endpoint
            else "the object store",
        )
        return meaning.kind(
            f"The {self._what} {self._address} cannot be {what}: {said}.",
            reason=meaning.reason,
            archive=self._address,
            error=type(error).__name__,
        )


_VARIABLES: Final = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for a store of another "
    "provider, AWS_ENDPOINT_URL",
    "gs": "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS (a key file)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
"""Where the library finds an account's keys."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    reason: str
    pattern: str
    """Of the library's text, for errors that it does not tell apart by type."""
    kind: type[EtlError]
    said: str


_DENIED: Final = _Meaning(
    "archive_denied",
    "",
    CredentialsRefused,
    "{store} refuses these credentials, or they may not use the bucket. Check {variables}, and the "
    "bucket's policy",
)
_NO_CREDENTIALS: Final = _Meaning(
    "archive_credentials",
    r"169\.254\.|/latest/(api|meta-data)/|token request|metadata\.google",
    CredentialsRefused,
    "there are no credentials, neither in the environment nor by a role of this machine. Set "
    "{variables}",
)
_NO_BUCKET: Final = _Meaning(
    "archive_no_bucket",
    "",
    ConfigurationError,
    "there is no such bucket. Create it, or correct the address",
)
_UNKNOWN: Final = _Meaning(
    "archive_unavailable",
    "",
    ArchiveUnavailable,
    "{store} failed. Look at its state, then try again",
)
_MEANINGS: Final = (
    _NO_CREDENTIALS,
    _Meaning(
        "archive_region",
        r"incorrectly configured region|PermanentRedirect|AuthorizationHeaderMalformed|"
        r"IllegalLocationConstraint",
        ConfigurationError,
        "the bucket is in another region than AWS_REGION says (us-east-1, if it is not set). Set "
        "it to the bucket's region",
    ),
    _Meaning(
        "archive_tls",
        r"invalid peer certificate|certificate verify|UnknownIssuer|NotValidForName",
        ConfigurationError,
        "the certificate of {store} is not acceptable. Have it renewed, or correct the address in "
        "AWS_ENDPOINT_URL",
    ),
    _Meaning(
        "archive_unreachable",
        r"kind: Connect|dns error|error sending request",
        ArchiveUnavailable,
        "there is no connection to {store}: its name cannot be resolved, or nothing listens there. "
        "Check the network and AWS_ENDPOINT_URL, or try again later",
    ),
)


def _endpoint() -> str:
    """The address of an S3 store of another provider, or nothing."""
    return os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT", "")


def _check_s3_variables() -> None:
    """What the library would say in a way that nobody understands, or crash on."""
    key, secret = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
    if bool(os.environ.get(key)) != bool(os.environ.get(secret)):
        missing, present = (secret, key) if os.environ.get(key) else (key, secret)
        raise ConfigurationError(f"{missing} is not set although {present} is: s3:// needs both.")
    try:
        parts = urlsplit(_endpoint())
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if _endpoint() and not (host and parts.scheme in ("http", "https")):
        raise ConfigurationError(
            "AWS_ENDPOINT_URL must be an address such as https://minio.example.",
            setting="AWS_ENDPOINT_URL",
        )
