"""``python -m tools.site [FOLDER]``: build the site, or say everything that is wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.environments import ROOT, tool_environment

CONFIGURATION: Final = Path(__file__).parent


def main(arguments: Sequence[str]) -> int:
    match list(arguments):
        case []:
            folder = ROOT / "build" / "site"
            shutil.rmtree(folder, ignore_errors=True)
        case [name] if not name.startswith("-"):
            folder = Path(name).resolve()
        case _:
            return failed("usage: ./dev docs [FOLDER]", 2)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return failed(f"{folder} is not an empty folder")
    if code := build(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return failed("the site is not built; what is wrong is said above", code)
    print(folder / "index.html")
    return 0


def build(folder: Path) -> int:
    """Build the site in a folder; the exit code of Sphinx.

    Every warning is an error: a dead link or anchor, a page without a place in the navigation.
    """
    with tempfile.TemporaryDirectory() as parsed:
        return subprocess.run(
            [
                *(tool_environment("docs") / "bin" / "python", "-m", "sphinx", "-b", "html"),
                *("--fail-on-warning", "--quiet", "--conf-dir", CONFIGURATION),
                *("--doctree-dir", parsed, ROOT, folder),
            ],
            cwd=ROOT,  # conf.py imports tools.site
            check=False,
        ).returncode


def failed(text: str, code: int = 1) -> int:
    print(f"dev: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
