"""What the recipes in ``examples/`` say: their commands, their exit codes, their manifests."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from etl.cli.exit_codes import EXIT_CODES, WORTH_RETRYING
from etl.cli.group import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
INTERRUPTED = frozenset(code for code in EXIT_CODES if code > 128)
FINAL = frozenset(EXIT_CODES) - {0} - WORTH_RETRYING - INTERRUPTED
"""What no retry mends."""
COMPUTED = "0"
"""Stands for what a recipe computes; a value that every option takes."""


def manifests() -> dict[str, list[Any]]:
    """The documents of each YAML file, by its path in ``examples/``."""
    return {
        path.relative_to(EXAMPLES).as_posix(): list(yaml.safe_load_all(path.read_text("utf-8")))
        for path in sorted(EXAMPLES.rglob("*.yaml"))
    }


def modules() -> dict[str, ast.Module]:
    """The syntax tree of each Python file, by its path in ``examples/``."""
    return {
        path.relative_to(EXAMPLES).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in sorted(EXAMPLES.rglob("*.py"))
    }


def jobs() -> Iterator[tuple[str, Any]]:
    """Each Job of Kubernetes, also that of a CronJob: the file and the ``spec`` of the Job."""
    for name, documents in manifests().items():
        for document in documents:
            if document.get("kind") == "CronJob":
                yield name, document["spec"]["jobTemplate"]["spec"]
            elif document.get("kind") == "Job":
                yield name, document["spec"]


def calls() -> Iterator[tuple[str, list[str]]]:
    """Each call of the program in a recipe: the file, and the arguments."""
    for path in ("cron/kaltura-etl", "cron/nightly.sh", "systemd/kaltura-etl.service"):
        text = (EXAMPLES / path).read_text("utf-8")
        for line in re.sub(r"^#.*$", "", text, flags=re.MULTILINE).splitlines():
            for found in re.finditer(r"kaltura-etl ([a-z]+) ([^|;']*)", line):
                if found[1] in COMMANDS:
                    yield path, [found[1], *shlex.split(found[2])]
    for path, tree in modules().items():
        yield from ((path, arguments) for arguments in _calls_of(tree))
    for path, spec in jobs():
        for container in spec["template"]["spec"]["containers"]:
            yield path, container["args"]
    (compose,) = manifests()["docker/compose.yaml"]
    for service in compose["services"].values():
        if "command" in service:
            yield "docker/compose.yaml", service["command"]


def added_options() -> set[str]:
    """The options in lists of the Python recipes that are put behind a command of another list."""
    return {
        word
        for tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.List) and not COMMANDS.keys() & set(words := list(_words(node)))
        for word in words
        if word.startswith("--")
    }


def constants(tree: ast.Module) -> dict[str, Any]:
    """The literals that a module gives names to."""
    found = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                found[statement.targets[0].id] = ast.literal_eval(statement.value)
            except ValueError:
                continue
    return found


def _calls_of(tree: ast.Module) -> Iterator[list[str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.List):
            words = list(_words(node))
            for start, word in enumerate(words):
                if word in COMMANDS:
                    yield words[start:]
                    break


def _words(node: ast.List | ast.Tuple) -> Iterator[str]:
    for element in node.elts:
        if isinstance(element, ast.Starred):
            # Of names that are unpacked nothing is known here; their own lists are looked at.
            if isinstance(element.value, ast.List | ast.Tuple):
                yield from _words(element.value)
        elif isinstance(element, ast.Constant):
            yield str(element.value)
        else:
            yield COMPUTED
