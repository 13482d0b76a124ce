"""Every error of the program, sorted by what the caller should do about it.

    EtlError                    exit 1    a bug, unless a child says otherwise
    ├── UsageError              exit 2    bad arguments: correct the call
    ├── DataRefused             exit 65   a check of the data failed; nothing was published
    ├── ServiceUnavailable      exit 69   the service failed after all retries: try again later
    │   └── ServiceFailure      (69)      one failed attempt that is worth a retry
    ├── WarehouseUnavailable    exit 74   Postgres failed or is not reachable: try again later
    │   └── ArchiveUnavailable  (74)      the archive cannot be read or written: try again later
    ├── LeaseHeld               exit 75   another run holds the lease, or took it over
    ├── CredentialsRefused      exit 77   session, secret or privilege refused
    ├── ConfigurationError      exit 78   a setting or the schema version is wrong
    ├── Stale                   exit 79   the data are older than was asked for: see why
    └── Interrupted             exit 130/143   SIGINT or SIGTERM

Errors are translated once, at the boundary where they arise, with ``raise … from exc``.  The
message says what failed, with what, and what to do; it never contains a secret.
"""

from __future__ import annotations


class EtlError(Exception):
    """Root of all errors that the program raises on purpose."""

    exit_code = 1
    kind = "internal"

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields
        """Machine-readable facts, such as ``code``, ``http_status``, ``page_index``."""


class UsageError(EtlError):
    """The command line asks for something that cannot be done."""

    exit_code = 2
    kind = "usage"


class DataRefused(EtlError):
    """What the service sent must not be published.  ``fields['reason']`` names the check."""

    exit_code = 65
    kind = "refused"


class ServiceUnavailable(EtlError):
    """The service did not give a usable answer within the retry policy."""

    exit_code = 69
    kind = "service_unavailable"


class ServiceFailure(ServiceUnavailable):
    """One attempt failed in a way that may not recur: worth a retry.

    ``retry_after_seconds`` is what the server asked for, or None.  ``code`` is Kaltura's error
    code, if it sent one.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        http_status: int | None = None,
        retry_after_seconds: float | None = None,
        **fields: object,
    ) -> None:
        super().__init__(message, code=code, http_status=http_status, **fields)
        self.code = code
        self.http_status = http_status
        self.retry_after_seconds = retry_after_seconds


class WarehouseUnavailable(EtlError):
    """Postgres refused, failed or went away."""

    exit_code = 74
    kind = "warehouse_unavailable"


class ArchiveUnavailable(WarehouseUnavailable):
    """The archive cannot be read or written now: free some space, or try again later."""

    kind = "archive_unavailable"


class LeaseHeld(EtlError):
    """Another run of the same partner holds the lease."""

    exit_code = 75
    kind = "lease_held"


class CredentialsRefused(EtlError):
    """The service or the database refused the credentials, or they lack a privilege."""

    exit_code = 77
    kind = "credentials"


class ConfigurationError(EtlError):
    """A setting is missing or wrong, or the schema is not of this program's version."""

    exit_code = 78
    kind = "configuration"


class Stale(EtlError):
    """The data are older than allowed, or were never complete."""

    exit_code = 79
    kind = "stale"


class Interrupted(EtlError):
    """A signal stopped the program; nothing was published."""

    kind = "interrupted"

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message, signal_number=signal_number)
        self.exit_code = 128 + signal_number
