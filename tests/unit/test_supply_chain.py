"""Hash-locked installs, the software bill of materials and the audit of advisories."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import threading
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.job import ROOT
from tools.environments import environment
from tools.supply_chain import (
    LOCKS,
    NOT_REACHABLE,
    VULNERABLE,
    packages_without_licence,
    verdict,
)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_file_has_a_version_and_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    packages = re.split(r"\n(?=\S)", text.strip())

    assert {*LOCKS} == {path.name for path in ROOT.glob("requirements*.txt")}
    for package in packages:
        assert re.match(r"[a-z0-9._-]+==[^\s;]+", package), package
        assert "--hash=sha256:" in package
        assert "://" not in package


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file of one wheel, which is the only one that can be had."""
    wheel = wheel_in(tmp_path)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "lock.txt"
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    file.write_text(f"locked==1.0 --hash=sha256:{sha256}\n", encoding="utf-8")
    return file


def test_what_was_changed_after_it_was_locked_is_not_installed(tmp_path: Path, lock: Path) -> None:
    assert list(environment(tmp_path / "right", lock).glob("lib/*/site-packages/locked.py"))

    for changed in (f"locked==1.0 --hash=sha256:{'0' * 64}\n", "locked==1.0\n"):
        lock.write_text(changed, encoding="utf-8")
        with pytest.raises(subprocess.CalledProcessError):
            environment(tmp_path / "wrong", lock)
        assert not list((tmp_path / "wrong").glob("lib/*/site-packages/locked.py"))


def test_those_who_come_together_make_one_environment_once(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As workers of the tests do: none of them may clear what another one is using."""
    calls: list[str] = []
    run = subprocess.run

    def counted(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[Any]:
        calls.append(" ".join(str(part) for part in command[1:3]))
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    together = threading.Barrier(3)

    def make(_: int) -> list[Path]:
        together.wait()
        return list(environment(tmp_path / "one", lock).glob("lib/*/site-packages/locked.py"))

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(make, range(3)))

    assert [len(each) for each in found] == [1, 1, 1]
    assert calls == ["venv -q", "pip sync"]


def wheel_in(folder: Path) -> Path:
    """A wheel of one module."""
    files = {
        "locked.py": b"",
        "locked-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: locked\nVersion: 1.0\n",
        "locked-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    lines = []
    for name, body in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(body)}")
    record = "\n".join([*lines, "locked-1.0.dist-info/RECORD,,", ""]).encode()
    path = folder / "locked-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, body in (files | {"locked-1.0.dist-info/RECORD": record}).items():
            wheel.writestr(name, body)
    return path


def test_dev_installs_by_hash_only() -> None:
    script = (ROOT / "dev").read_text(encoding="utf-8").replace("\\\n", " ")
    installs = [
        line
        for line in script.splitlines()
        if re.search(r"pip (sync|install) ", line) and "--no-index" not in line
    ]

    assert len(installs) == 2
    assert all("--require-hashes" in line for line in installs)


SAFE = {"name": "a", "version": "1", "vulns": []}
VULNERABLE_ONE = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1"}, {"id": "PYSEC-2"}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([SAFE], 0, "no known vulnerability in 1 packages"),
        ([SAFE, VULNERABLE_ONE, UNKNOWN], VULNERABLE, r"b 2 \(PYSEC-1, PYSEC-2\)"),
        ([SAFE, UNKNOWN], NOT_REACHABLE, "1 of 2 packages"),
        (None, NOT_REACHABLE, "cannot be reached"),
    ],
)
def test_the_verdict_of_an_audit(
    packages: list[dict[str, object]] | None, code: int, said: str
) -> None:
    report = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})

    found, sentence = verdict("requirements.txt", report)

    assert found == code
    assert re.search(said, sentence)


def test_packages_without_a_licence_are_named() -> None:
    document = {
        "components": [
            {"name": "a", "licenses": [{"license": {"id": "MIT"}}]},
            {"name": "b", "licenses": []},
            {"name": "c"},
        ]
    }

    assert packages_without_licence(document) == ["b", "c"]
