"""Fields that every log line of a part of the program has, such as the account that it is about."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_NONE: Final[Mapping[str, object]] = MappingProxyType({})
_FIELDS: Final = contextvars.ContextVar("log_fields", default=_NONE)


@contextmanager
def log_fields(**fields: object) -> Iterator[None]:
    """Add these fields to each line that the block logs, in this thread.

    A line that has a field of the same name keeps its own.
    """
    before = _FIELDS.set({**_FIELDS.get(), **fields})
    try:
        yield
    finally:
        _FIELDS.reset(before)


def with_log_fields(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` to be called in another thread, which logs with the fields of this one."""
    return partial(contextvars.copy_context().run, function)


def add_log_fields(record: logging.LogRecord) -> bool:
    """Filter of a handler: the record gets the fields of the thread that logs."""
    for name, value in _FIELDS.get().items():
        vars(record).setdefault(name, value)
    return True
