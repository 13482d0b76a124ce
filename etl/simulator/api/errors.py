"""Kaltura's API errors: sent with HTTP 200, as an object with ``code`` and ``message``."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An error reply.  ``announced`` errors also name themselves in the X-Kaltura header."""

    def __init__(
        self,
        code: str,
        message: str,
        args: dict[str, str] | None = None,
        *,
        announced: bool = False,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.parameters = args or {}
        self.announced = announced

    def as_object(self) -> dict[str, Any]:
        """The reply; ``args`` is an empty list when there are none, as PHP has it."""
        return {
            "code": self.code,
            "message": self.message,
            "objectType": "KalturaAPIException",
            "args": self.parameters or [],
        }


def invalid_ks(reason: str) -> ApiError:
    """``reason`` is EXPIRED, LOGOUT, … or the session string itself when its signature is bad."""
    return ApiError(
        "INVALID_KS",
        f'Invalid KS "{reason}", Error "-1,INVALID_STR"',
        {"KSID": reason, "ERR_CODE": "-1", "ERR_DESC": "INVALID_STR"},
    )


def service_forbidden(service: str, action: str) -> ApiError:
    name = f"{service}->{action}"
    return ApiError(
        "SERVICE_FORBIDDEN",
        f"The access to service [{name}] is forbidden",
        {"SERVICE": name},
        announced=True,
    )


def partner_blocked() -> ApiError:
    return ApiError(
        "SERVICE_FORBIDDEN_CONTENT_BLOCKED",
        "The access to this service is forbidden since the specified partner is blocked",
    )


def action_does_not_exist(service: str, action: str) -> ApiError:
    return ApiError(
        "ACTION_DOES_NOT_EXISTS",
        f'Action "{action}" does not exists for service "{service}"',
        {"ACTION_NAME": action, "SERVICE_NAME": service},
    )


def service_does_not_exist(service: str) -> ApiError:
    return ApiError(
        "SERVICE_DOES_NOT_EXISTS",
        f'Service "{service}" does not exists',
        {"SERVICE_NAME": service},
    )


def action_blocked(service: str, action: str) -> ApiError:
    return ApiError(
        "ACTION_BLOCKED",
        f'Action "{action}" in service "{service}" is blocked',
        {"ACTION_NAME": action, "SERVICE_NAME": service},
    )


def start_session_error(partner_id: object) -> ApiError:
    return ApiError(
        "START_SESSION_ERROR",
        f"Error while starting session for partner [{partner_id}]",
        {"PID": str(partner_id)},
    )


def missing_parameter(name: str) -> ApiError:
    return ApiError(
        "MISSING_MANDATORY_PARAMETER", f'Missing parameter "{name}"', {"PARAM_NAME": name}
    )


def invalid_enum(value: object, parameter: str, kind: str) -> ApiError:
    return ApiError(
        "INVALID_ENUM_VALUE",
        f'Invalid enumeration value "{value}" for parameter "{parameter}", '
        f'expecting enumeration type "{kind}"',
        {"ENUM_VAL": str(value), "PARAM_NAME": parameter, "ENUM_TYPE": kind},
    )


def wrong_format(name: str, wanted: str) -> ApiError:
    return ApiError(
        "PROPERTY_VALIDATION_WRONG_FORMAT",
        f'The property "{name}" must match format {wanted}',
        {"PROP_NAME": name, "FORMAT": wanted},
    )


def not_simulated(filter_name: str) -> ApiError:
    """No error of the service: the simulator does not know what the service knows."""
    return ApiError("NOT_SIMULATED", f'The simulator does not know the filter "{filter_name}"')


def invalid_field(name: str) -> ApiError:
    return ApiError(
        "INVALID_FIELD_VALUE", f"value in field [{name}] is not valid", {"FIELD_NAME": name}
    )


def invalid_actions_limit() -> ApiError:
    return ApiError("INVALID_ACTIONS_LIMIT", "Invalid actions limit")


def invalid_object_id(value: str) -> ApiError:
    return ApiError("INVALID_OBJECT_ID", f"Invalid object id [{value}]", {"ID": value})


def token_not_found() -> ApiError:
    return ApiError("UPLOAD_TOKEN_NOT_FOUND", "Upload token not found")


def internal_server_error() -> ApiError:
    """Spelt as the service spells it."""
    return ApiError("INTERNAL_SERVERL_ERROR", "Internal server error occurred")


def internal_database_error() -> ApiError:
    return ApiError("INTERNAL_DATABASE_ERROR", "Internal database error")
