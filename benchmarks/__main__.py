"""``./dev bench``: see benchmarks/README.md."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "profile": "benchmarks.stages",
    "peers": "benchmarks.peers.command",
    "scale": "benchmarks.scale",
    "views": "benchmarks.views",
    "waiting": "benchmarks.waiting",
}

name = sys.argv[1] if len(sys.argv) > 1 else ""
module = COMMANDS.get(name, "benchmarks.table")
import_module(module).main(sys.argv[2:] if name in COMMANDS else sys.argv[1:])
