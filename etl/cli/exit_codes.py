"""The table of exit codes, on which orchestrators rely."""

from __future__ import annotations

import signal

from etl.errors import (
    ConfigurationError,
    CredentialsRefused,
    DataRefused,
    EtlError,
    LeaseHeld,
    ServiceUnavailable,
    UsageError,
    WarehouseUnavailable,
)

EXIT_CODES: dict[int, str] = {
    0: "published, or nothing to do",
    1: "a bug",
    2: "wrong use of the command line",
    65: "refused by the audit or by a check",
    69: "the service failed after all retries",
    74: "the warehouse failed or is not reachable",
    75: "another run holds the lease",
    77: "credentials or privileges refused",
    78: "a setting or the schema version is wrong",
    79: "older than --max-age, or never complete",
    129: "interrupted by SIGHUP",
    130: "interrupted by SIGINT",
    143: "interrupted by SIGTERM",
}
WORTH_RETRYING = frozenset({69, 74, 75})


def exit_code_of(error: BaseException) -> int:
    """The exit code for whatever ended the program; an unexpected exception is a bug."""
    if isinstance(error, EtlError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return EtlError.exit_code


def error_of(code: int, message: str) -> EtlError:
    """The error whose exit code this is, for a failure that is known by its code alone."""
    for kind in (
        UsageError,
        DataRefused,
        ServiceUnavailable,
        WarehouseUnavailable,
        LeaseHeld,
        CredentialsRefused,
        ConfigurationError,
    ):
        if kind.exit_code == code:
            return kind(message)
    return EtlError(message)
