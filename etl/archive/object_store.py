"""Archives in an object store, through ``obstore`` (the extra ``archive``).

Credentials come from the environment, as for the store's own tools: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL`` and so on, or the machine's role.
A put is atomic, so nothing has to be renamed.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from etl.errors import ArchiveUnavailable, ConfigurationError, CredentialsRefused, EtlError

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Obstore

REQUEST_SECONDS: Final = 60
RETRIES_MAX: Final = 5
RETRY_SECONDS: Final = 180


def open_object_store(address: str) -> ObjectStore:
    """The store of an ``s3://``, ``gs://`` or ``az://`` address; sends no request yet."""
    try:
        # Imported here because it takes 16 ms, and is an optional extra.
        from obstore import exceptions, store  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "An archive in an object store needs a library that is not installed: "
            "pip install 'kaltura-etl[archive]'."
        ) from error
    parts = urlsplit(address)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            "An archive's address is scheme://bucket/path without a user, key or query: the keys "
            "come from the environment (AWS_ACCESS_KEY_ID and related variables)."
        )
    if not parts.netloc:
        raise ConfigurationError("An archive's address names no bucket: s3://bucket/path.")
    # A self-hosted store on the same machine or network seldom has a certificate; with http:// in
    # the endpoint the operator accepts that.
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT", "")
    plain = parts.scheme.lower() == "s3" and endpoint.startswith("http://")
    try:
        opened = store.from_url(
            address.rstrip("/"),
            client_options={"timeout": timedelta(seconds=REQUEST_SECONDS), "allow_http": plain},
            retry_config={
                "max_retries": RETRIES_MAX,
                "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            },
        )
    except (exceptions.BaseError, ValueError, TypeError) as error:
        # The library's text may contain values from the environment.
        raise ConfigurationError(
            f"The archive's address {address} cannot be used: {type(error).__name__}. Check it, "
            "and the store's variables in the environment."
        ) from None
    return ObjectStore(address.rstrip("/"), opened)


class ObjectStore:
    """Objects under one address."""

    def __init__(self, address: str, opened: Obstore) -> None:
        self._address = address
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
            raise self._failure("read", error) from None

    def write(self, name: str, body: bytes) -> None:
        import obstore  # noqa: PLC0415

        try:
            obstore.put(self._store, name, body)
        except Exception as error:
            raise self._failure("written", error) from None

    def tidy(self, folder: str) -> None:
        """Nothing: a put is whole, or it is not there."""

    def delete(self, folder: str) -> int:
        import obstore  # noqa: PLC0415

        try:
            found = obstore.list(self._store, f"{folder}/").collect()
            if found:
                obstore.delete(self._store, [each["path"] for each in found])
        except Exception as error:
            raise self._failure("deleted", error) from None
        return len(found)

    def _names(self, under: str, what: str) -> list[str]:
        import obstore  # noqa: PLC0415

        prefix = f"{under}/" if under else None
        try:
            listed: Any = obstore.list_with_delimiter(self._store, prefix)
        except Exception as error:
            raise self._failure("listed", error) from None
        paths = [each if isinstance(each, str) else each["path"] for each in listed[what]]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def _failure(self, what: str, error: Exception) -> EtlError:
        """Translate an error of the library, whose texts contain addresses, headers and bodies."""
        from obstore import exceptions  # noqa: PLC0415

        said = f"The archive {self._address} cannot be {what}"
        facts: dict[str, object] = {"archive": self._address, "error": type(error).__name__}
        refused = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
        if isinstance(error, (*refused, PermissionError)):
            return CredentialsRefused(
                f"{said}: the object store refuses the credentials. Check the keys in the "
                "environment and their permissions.",
                **facts,
            )
        if isinstance(error, exceptions.NotFoundError | FileNotFoundError):
            return ConfigurationError(f"{said}: there is no such bucket.", **facts)
        return ArchiveUnavailable(
            f"{said} ({type(error).__name__}): check its address and try again later.", **facts
        )
