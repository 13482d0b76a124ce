"""``./dev sbom`` and ``./dev audit``: what the lock files install, and what is known against it.

Both use well-kept tools (cyclonedx-py, pip-audit), which ``requirements-audit.txt`` locks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tools.environments import ROOT, environment, tool_environment

LOCKS: Final = (
    *("requirements.txt", "requirements-dev.txt", "requirements-audit.txt"),
    *("requirements-docs.txt", "requirements-uv.txt"),
)
VULNERABLE: Final = 1
NOT_REACHABLE: Final = 69
"""As the program's own exit code for a service that cannot be reached."""


def main(arguments: Sequence[str]) -> int:
    match list(arguments):
        case ["sbom", *rest] if len(rest) < 2:
            return sbom(Path(rest[0]) if rest else None)
        case ["audit"]:
            return audit()
    say("usage: ./dev sbom [FILE] | ./dev audit")
    return 2


def sbom(file: Path | None) -> int:
    """A CycloneDX document (JSON) of the packages of ``requirements.txt``, with their licences.

    To standard output, or to a file.
    """
    tools = tool_environment("audit")
    with tempfile.TemporaryDirectory() as folder:
        installed = environment(Path(folder) / "installed", ROOT / "requirements.txt")
        made = subprocess.run(
            [
                *(tools / "bin" / "cyclonedx-py", "environment", installed / "bin" / "python"),
                *("--pyproject", ROOT / "pyproject.toml", "--output-reproducible"),
            ],
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
    without = packages_without_licence(json.loads(made))
    if without:
        say(f"no licence is declared by {', '.join(without)}")
    if file is None:
        sys.stdout.buffer.write(made)
    else:
        file.write_bytes(made)
    return 0


def packages_without_licence(document: dict[str, Any]) -> list[str]:
    """The names of the components of a CycloneDX document that declare none."""
    return [each["name"] for each in document["components"] if not each.get("licenses")]


def audit() -> int:
    """Ask the advisory index about every package of the lock files."""
    tools = tool_environment("audit")
    code = 0
    for lock in LOCKS:
        asked = subprocess.run(
            [
                *(tools / "bin" / "pip-audit", "--requirement", ROOT / lock, "--require-hashes"),
                *("--disable-pip", "--progress-spinner", "off", "--format", "json"),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        found, said = verdict(lock, asked.stdout)
        say(said)
        code = VULNERABLE if VULNERABLE in (code, found) else max(code, found)
    return code


def verdict(lock: str, report: str) -> tuple[int, str]:
    """The exit code for pip-audit's report on a lock file, and a sentence for people."""
    try:
        packages = json.loads(report)["dependencies"]
    except ValueError:
        return NOT_REACHABLE, f"{lock}: not audited: the advisory index cannot be reached"
    vulnerable = [
        f"{each['name']} {each['version']} ({', '.join(one['id'] for one in each['vulns'])})"
        for each in packages
        if each.get("vulns")
    ]
    unknown = [each["name"] for each in packages if "vulns" not in each]
    if vulnerable:
        return VULNERABLE, f"{lock}: known vulnerabilities: {'; '.join(vulnerable)}"
    if unknown:
        return NOT_REACHABLE, (
            f"{lock}: not audited: the advisory index knows nothing of {len(unknown)} of "
            f"{len(packages)} packages, or cannot be reached"
        )
    return 0, f"{lock}: no known vulnerability in {len(packages)} packages"


def say(text: str) -> None:
    print(f"dev: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
