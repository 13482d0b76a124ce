"""From an HTTP request to the parameters of a call: body, query string and path, merged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import msgspec

from etl.simulator.http.wire import HttpRequest

ROOT = "/api_v3"


def is_service_path(path: str) -> bool:
    return path == ROOT or path.startswith(ROOT + "/")


def read_params(request: HttpRequest) -> dict[str, Any]:
    """All parameters, ``service`` and ``action`` among them; later sources win.

    A JSON body counts only with the content type exactly ``application/json``, and only if it is
    an object; otherwise it is ignored without a word.  Query parameters override the body, the
    path overrides both.  ``a:b`` in a name means ``b`` inside ``a``, in every source.
    """
    params: dict[str, Any] = {}
    _merge(params, _body_params(request))
    _merge(params, parse_qsl(request.query, keep_blank_values=True))
    _merge(params, _path_params(request.path))
    return params


def _body_params(request: HttpRequest) -> Iterable[tuple[str, Any]]:
    content_type = request.headers.get("content-type", "")
    if content_type == "application/json":
        try:
            value = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ()
        return value.items() if isinstance(value, dict) else ()
    if content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
        return parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True)
    return ()


def _path_params(path: str) -> Iterable[tuple[str, Any]]:
    """``/api_v3/service/x/action/y/name/value``; doubled slashes count as one."""
    parts = [unquote_plus(part) for part in path[len(ROOT) :].split("/") if part]
    if parts and parts[0].endswith(".php"):
        parts = parts[1:]
    return zip(parts[::2], parts[1::2], strict=False)


def _merge(params: dict[str, Any], pairs: Iterable[tuple[str, Any]]) -> None:
    for name, value in pairs:
        target = params
        *groups, last = str(name).split(":")
        for group in groups:
            inner = target.get(group)
            if not isinstance(inner, dict):
                inner = target[group] = {}
            target = inner
        if isinstance(value, dict):
            inner = target.get(last)
            if not isinstance(inner, dict):
                inner = target[last] = {}
            _merge(inner, value.items())
        else:
            target[last] = value
