"""From an HTTP request to the parameters of a call: JSON body, query string and path, merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import msgspec

from etl.simulator.api import errors
from etl.simulator.message import HttpRequest

ROOT = "/api_v3"


def is_service_path(path: str) -> bool:
    return path == ROOT or path.startswith(ROOT + "/")


def read_params(request: HttpRequest) -> dict[str, Any]:
    """All parameters, ``service`` and ``action`` among them; later sources win.

    A body counts only with the content type exactly ``application/json`` (case aside), and only if
    it is an object; otherwise it is ignored silently.  Query parameters override the body, the path
    (``/api_v3/service/x/action/y/name/value``) overrides both.
    """
    params = _body_params(request)
    params |= dict(parse_qsl(request.query, keep_blank_values=True))
    parts = [unquote_plus(part) for part in request.path[len(ROOT) :].split("/") if part]
    if parts and parts[0].endswith(".php"):
        parts = parts[1:]
    return params | dict(zip(parts[::2], parts[1::2], strict=False))


def object_param(params: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A parameter that is an object.  A list is one without properties: both are arrays of PHP."""
    given = params.get(name)
    if given is None or isinstance(given, list):
        return {}
    if not isinstance(given, Mapping):
        raise errors.wrong_format(name, "array")
    return given


def _body_params(request: HttpRequest) -> dict[str, Any]:
    if request.headers.get("content-type", "").lower() != "application/json":
        return {}
    try:
        value = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
