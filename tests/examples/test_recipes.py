"""The recipes in ``examples/`` call the program as it is, and know its exit codes.

That they work in their orchestrators is shown by ``tests/orchestrators``.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from etl.cli import main
from etl.cli.exit_codes import WORTH_RETRYING
from etl.errors import LeaseHeld, Stale
from tests.support.recipes import (
    EXAMPLES,
    FINAL,
    INTERRUPTED,
    ROOT,
    added_options,
    calls,
    constants,
    jobs,
    manifests,
    modules,
)


def test_every_call_is_one_that_the_program_understands() -> None:
    found = list(calls())
    for path, (name, *arguments) in found:
        command = main.get_command(click.Context(main), name)
        assert command is not None, (path, name)
        context = click.Context(command, info_name=name, **main.context_settings)
        _, rest, _ = command.make_parser(context).parse_args(list(arguments))
        assert rest == [], (path, name, arguments)

    assert {path.partition("/")[0] for path, _ in found} == {
        *("airflow", "cron", "dagster", "docker", "kubernetes", "systemd")
    }
    assert {name for _, (name, *_) in found} == {"backfill", "migrate", "status", "sync", "verify"}


def test_options_that_are_added_to_a_run_are_those_of_every_run() -> None:
    for name in ("sync", "backfill"):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        assert {"--all", "--accounts", "--json", "--run-label"} <= added_options() <= known


def test_python_recipes_retry_what_is_worth_it() -> None:
    for path, tree in modules().items():
        known = constants(tree)
        assert known["RETRYABLE"] == WORTH_RETRYING, path
        assert known["INTERRUPTED"] == INTERRUPTED, path
        assert known["STALE"] == Stale.exit_code, path
        assert known.get("HELD", LeaseHeld.exit_code) == LeaseHeld.exit_code, path


def test_the_unit_of_systemd_is_not_started_again_where_that_is_in_vain() -> None:
    service = _unit("kaltura-etl.service")["Service"]

    assert set(map(int, service["RestartPreventExitStatus"].split())) == FINAL
    assert service["SuccessExitStatus"] == "143"
    assert service["Restart"] == "on-failure"
    assert service["Type"] == "oneshot"


def test_jobs_of_kubernetes_end_at_once_where_a_retry_is_in_vain() -> None:
    for path, spec in jobs():
        (container,) = spec["template"]["spec"]["containers"]
        final, disrupted = spec["podFailurePolicy"]["rules"]
        codes = final["onExitCodes"]
        assert codes["values"] == sorted(FINAL), path
        assert (codes["operator"], codes["containerName"]) == ("In", container["name"]), path
        assert disrupted["action"] == "Ignore", path
        # Kubernetes refuses the policy with another one.
        assert spec["template"]["spec"]["restartPolicy"] == "Never", path


def test_pods_may_do_nothing_and_see_their_secrets_as_files() -> None:
    for path, spec in jobs():
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        user = _user_of_the_image()
        assert pod["securityContext"]["runAsNonRoot"], path
        assert {pod["securityContext"][of] for of in ("runAsUser", "fsGroup")} == {user}, path
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, path
        assert not pod["automountServiceAccountToken"], path
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}, path
        variables = {each["name"]: each.get("value", "") for each in container["env"]}
        assert variables["VARIABLE_FILE"].startswith(f"{mounts['settings']}/"), path
        (secret,) = (each["secret"] for each in pod["volumes"] if "secret" in each)
        assert secret["defaultMode"] == 0o440, path
        assert not set(variables) & {"DATABASE_URL", "KALTURA_ADMIN_SECRET"}, path


def test_cron_jobs_of_kubernetes_do_not_overlap() -> None:
    config, cron = manifests()["kubernetes/cronjob.yaml"]

    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert set(tomllib.loads(config["data"]["accounts.toml"])) == {"accounts"}


def test_compose_runs_the_program_without_rights_and_with_its_secret_as_a_file() -> None:
    (compose,) = manifests()["docker/compose.yaml"]
    user = _user_of_the_image()
    for name in ("migrate", "sync"):
        service = compose["services"][name]
        assert service["user"] == f"{user}:{user}"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["environment"] == {"VARIABLE_FILE": "/run/secrets/settings.env"}
        assert (EXAMPLES / "docker" / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_the_image_is_made_of_files_that_exist_and_are_sent_to_it() -> None:
    text = (EXAMPLES / "docker" / "Dockerfile").read_text("utf-8")
    ignored = (EXAMPLES / "docker" / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
        for name in line.split()
    }

    assert {f"!{name}" for name in copied} == {line for line in ignored if line.startswith("!")}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    # Every call of pip gets what is locked, or has no index to get anything from.
    installed = re.findall(r"python -m pip .*?(?:install|wheel) (\S+) --no-deps ", text)
    assert len(installed) == text.count("python -m pip")
    assert set(installed) == {"--require-hashes", "--no-index"}


def test_the_image_has_what_builds_the_package() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]
    locked = (EXAMPLES / "docker" / "requirements-build.txt").read_text("utf-8")

    for requirement in wanted["requires"]:
        assert re.search(rf"^{re.split('[<>=]', requirement)[0]}==", locked, re.MULTILINE)


@pytest.mark.parametrize(
    ("codes", "calls"),
    [([0], 1), ([69, 74, 75, 0], 4), ([75, 65], 2), ([77], 1), ([69, 69, 69, 69], 4)],
    ids=str,
)
def test_the_nightly_script_of_cron(codes: list[int], calls: int, tmp_path: Path) -> None:
    _program(tmp_path, codes)
    script = (EXAMPLES / "cron" / "nightly.sh").read_text("utf-8")

    code, called = _run(["/bin/sh", "-c", script.replace("300 900 2700 0", "0 0 0 0")], tmp_path)

    assert (code, len(called)) == (codes[-1], calls)
    assert len(set(called)) == 1  # the label is the same, too
    assert re.search(r"--run-label nightly \d{4}-\d\d-\d\d$", called[0])


@pytest.mark.parametrize(("code", "mailed"), [(0, 0), (75, 0), (65, 1)])
def test_the_incremental_line_of_cron(code: int, mailed: int, tmp_path: Path) -> None:
    _program(tmp_path, [code])
    text = (EXAMPLES / "cron" / "kaltura-etl").read_text("utf-8")
    (line,) = re.findall(r"^(?:\S+ +){5}kaltura-etl +(.* incremental .*)$", text, re.MULTILINE)

    assert _run(["/bin/sh", "-c", line], tmp_path)[0] == mailed


def test_the_command_of_the_unit_gives_the_night_a_label(tmp_path: Path) -> None:
    _program(tmp_path, [0])
    line = _unit("kaltura-etl.service")["Service"]["ExecStart"]
    found = re.fullmatch(r"/bin/sh -c '(.*)'", line)
    assert found is not None
    script = found[1].replace("$$", "$").replace("%%", "%")  # as systemd reads it

    _, (called,) = _run(["/bin/sh", "-c", script.replace("/opt/kaltura-etl/bin/", "")], tmp_path)

    assert re.fullmatch(r"sync --all .*--run-label nightly \d{4}-\d\d-\d\d", called)


def test_every_recipe_has_its_place_in_the_page() -> None:
    page = (ROOT / "docs" / "howto" / "orchestrators.md").read_text("utf-8")
    listed = re.findall(r"^\| [^|]+ \| (`[^|]+) \|", page, re.MULTILINE)
    named = {name for cell in listed for name in re.findall(r"`([\w./-]+)`", cell)}
    files = {path.name for path in EXAMPLES.rglob("*") if path.is_file()}

    assert {name.rpartition("/")[2] for name in named} <= files | {".timer"}


def _unit(name: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)  # keys may be repeated
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(EXAMPLES / "systemd" / name, encoding="utf-8")
    return unit


def _user_of_the_image() -> int:
    text = (EXAMPLES / "docker" / "Dockerfile").read_text("utf-8")
    (user, group) = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)[-1]
    assert user == group != "0"
    return int(user)


def _program(folder: Path, codes: list[int]) -> None:
    """A ``kaltura-etl`` that ends with these exit codes, one after the other."""
    text = f"""#!/bin/sh
echo "$*" >>{folder}/called
set -- {" ".join(map(str, codes))}
shift $(($(wc -l <{folder}/called) - 1))
exit "$1"
"""
    (folder / "kaltura-etl").write_text(text)
    (folder / "kaltura-etl").chmod(0o755)


def _run(command: list[str], folder: Path) -> tuple[int, list[str]]:
    """The exit code, and the arguments of each call of the program."""
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, cwd=folder, check=False)
    return done.returncode, (folder / "called").read_text().splitlines()
