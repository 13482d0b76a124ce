"""Statements are compiled once per process, whatever number of engines sends them.

SQLAlchemy keeps compiled statements for each engine.  A run sends some 45 different ones, and to
compile them is half of its processor time where little has changed: a job of many accounts, which
opens an engine for each, would pay that for each.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.util import LRUCache

STATEMENTS_AT_MOST: Final = 500  # as many as SQLAlchemy keeps for one engine


class SharedStatements(LRUCache[tuple[Any, ...], Any]):
    """A ``compiled_cache`` for engines of one kind of dialect: safe for threads, bounded.

    SQLAlchemy's key begins with the dialect, an object of each engine; here it is what of a dialect
    decides how a statement is compiled: its class and the version of its server.
    """

    def get(self, key: tuple[Any, ...], default: Any = None) -> Any:
        return super().get(_for_all_engines(key), default)

    def __setitem__(self, key: tuple[Any, ...], compiled: Any) -> None:
        super().__setitem__(_for_all_engines(key), compiled)


def _for_all_engines(key: tuple[Any, ...]) -> tuple[Any, ...]:
    dialect, *statement = key
    return (type(dialect), dialect.server_version_info, *statement)


STATEMENTS: Final = SharedStatements(STATEMENTS_AT_MOST)
