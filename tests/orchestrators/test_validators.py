"""The manifests in ``examples/``, read by validators; each also finds a mistake that was put in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.job import ROOT

EXAMPLES = ROOT / "examples"

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("name", ["cronjob", "migrate"])
def test_kubernetes_knows_every_key(
    name: str, version: str, validators: Path, tmp_path: Path
) -> None:
    text = (EXAMPLES / "kubernetes" / f"{name}.yaml").read_text()
    program: list[str | Path] = [validators / "kubernetes-validate", "--strict", "-k", version]

    assert _said(program, _file(tmp_path / "right.yaml", text))[0] == 0
    wrong = text.replace("backoffLimit", "backOffLimit")
    assert _said(program, _file(tmp_path / "wrong.yaml", wrong))[0] == 1


def test_compose_knows_every_key(validators: Path, tmp_path: Path) -> None:
    text = (EXAMPLES / "docker" / "compose.yaml").read_text()
    program: list[str | Path] = [
        validators / "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
    ]

    assert _said(program, _file(tmp_path / "right.yaml", text))[0] == 0
    wrong = text.replace("cap_drop", "cap_drops")
    assert _said(program, _file(tmp_path / "wrong.yaml", wrong))[0] == 1


def test_hadolint_has_nothing_to_say(validators: Path, tmp_path: Path) -> None:
    text = (EXAMPLES / "docker" / "Dockerfile").read_text()
    program = [validators / "hadolint"]

    assert _said(program, _file(tmp_path / "Dockerfile", text)) == (0, "")
    wrong = text.replace("3.13-slim-trixie", "latest")
    assert "DL3007" in _said(program, _file(tmp_path / "Wrong", wrong))[1]


@pytest.mark.systemd
def test_systemd_accepts_the_units_and_finds_them_hardened(tmp_path: Path) -> None:
    service = (EXAMPLES / "systemd" / "kaltura-etl.service").read_text()
    for name in ("kaltura-etl.service", "kaltura-etl.timer"):
        (tmp_path / name).write_text((EXAMPLES / "systemd" / name).read_text())
    units = [tmp_path / "kaltura-etl.service", tmp_path / "kaltura-etl.timer"]
    verify = ["systemd-analyze", "verify", "--man=no"]
    security = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15"]

    assert _said(verify, *units) == (0, "")
    assert _said(security, units[0])[0] == 0
    _file(units[0], service.replace("TimeoutStartSec", "TimeoutStartSecs"))
    assert "TimeoutStartSecs" in _said(verify, *units)[1]
    _file(units[0], service.replace("DynamicUser=yes", "User=root"))
    assert _said(security, units[0])[0] != 0


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _said(program: Sequence[str | Path], *files: Path) -> tuple[int, str]:
    """The exit code, and all that was printed."""
    done = subprocess.run(
        [*program, *files],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    sys.stdout.write(done.stdout)
    return done.returncode, done.stdout
