"""Holds the statements of a process to ``tests.support.portable``; Python imports it by its name.

It is on the path of the processes that tests start (``tests.support.environment.PYTHONPATH``).
Nothing is imported before the process imports the warehouse itself, so that a start is as lazy as
without it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _HeldEngine:
    """Finds ``etl.warehouse.engine`` as ever, and changes how it opens connections."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "etl.warehouse.engine":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                from tests.support.portable import hold

                hold(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _HeldEngine())
