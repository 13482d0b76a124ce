"""Commands of the documents, run as a reader would paste them, against the simulator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from etl.embedded.binaries import find_binaries
from tests.support.environment import PYTHONPATH

ROOT = Path(__file__).resolve().parents[2]
CRON_LINE = re.compile(r"(?:[\d*/,-]+\s+){5}(\S.*)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SHIMS = {
    # In a checkout ./dev makes an environment first; the tests are in one.
    "dev": """#!/bin/sh
case ${1:-} in
run) shift; exec kaltura-etl "$@" ;;
psql) exec kaltura-etl "$@" ;;
demo | test) exit 0 ;;
*) exit 2 ;;
esac
""",
    # There is no terminal whose echo could be switched off.
    "stty": "#!/bin/sh\nexit 0\n",
    # Where they are not installed: only what the documents use of them.
    "curl": f"""#!{sys.executable}
import sys, urllib.request
flags, header, kind, data, source, url = sys.argv[1:]
assert (flags, header, data, source) == ("-sS", "-H", "-d", "@-")
name, _, value = kind.partition(": ")
body = sys.stdin.buffer.read().replace(b"\\n", b"")
request = urllib.request.Request(url, body, {{name: value}})
sys.stdout.write(urllib.request.urlopen(request).read().decode())
""",
    "jq": f"""#!{sys.executable}
import json, sys
assert sys.argv[1:] == ["-r", "."]
print(json.load(sys.stdin))
""",
}


@dataclass(frozen=True)
class Block:
    """One block of a page: ``sh``, ``sql`` or ``cron``."""

    kind: str
    text: str
    following: str
    """The block without a language after it: what the reader is to type."""


def blocks_of(page: Path) -> Iterator[Block]:
    found = [match.groups() for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]
    for number, (kind, text) in enumerate(found):
        following = found[number + 1] if number + 1 < len(found) else ("sh", "")
        typed = following[1] if following[0] == "" else ""
        if kind in ("sh", "sql"):
            yield Block(kind, text, typed)
        elif kind == "" and (cron := CRON_LINE.fullmatch(text.strip())):
            yield Block("cron", cron[1], "")


class Reader:
    """A home folder with a checkout in it, in which blocks are run one after the other."""

    def __init__(
        self, home: Path, program: str, environment: dict[str, str], replaced: dict[str, str]
    ) -> None:
        """``program``: the text of ``kaltura-etl``."""
        self.home = home
        self.checkout = home / "kaltura-etl"
        self.replaced = replaced
        """What is put in place of an example's values."""
        self.environment = environment | {"HOME": str(home), "PYTHONPATH": PYTHONPATH}
        programs = home / "bin"
        programs.mkdir(parents=True)
        self.checkout.mkdir()
        (self.checkout / "sql").symlink_to(ROOT / "sql")
        # Debian's psql is a script that looks for one, which costs more than most commands.
        (programs / "psql").symlink_to(find_binaries() / "psql")
        for name, text in {**SHIMS, "kaltura-etl": program}.items():
            path = (self.checkout if name == "dev" else programs) / name
            if name in ("curl", "jq") and _is_installed(name):
                continue
            path.write_text(text)
            path.chmod(0o755)
        self.environment["PATH"] = f"{programs}:{os.environ['PATH']}"

    def run(self, block: Block, *, typed: str = "", **variables: str) -> str:
        """Run a block as a whole; what it printed.  Any command of it that fails is an error."""
        text, standard_input = self.fitted(block.text), self.fitted(block.following or typed)
        command = ["sh", "-e", "-c", text]
        if block.kind == "sql":
            command = ["kaltura-etl", "psql", "-X", "-v", "ON_ERROR_STOP=1"]
            standard_input = text
        done = subprocess.run(
            command,
            cwd=self.checkout,
            env=self.environment | variables,
            input=standard_input,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (block.text, done.stdout, done.stderr)
        if block.kind == "cron" and "--quiet" in text:
            assert (done.stdout, done.stderr) == ("", ""), text
        return done.stdout

    def fitted(self, text: str) -> str:
        for example, own in self.replaced.items():
            text = text.replace(example, own)
        return text

    def remember_app_token(self, reply: str) -> None:
        """From now on the examples' app token is the one of this reply of the service."""
        token = json.loads(reply[reply.index("{") :])
        self.replaced["KALTURA_APP_TOKEN_ID=0_abcdefgh"] = f"KALTURA_APP_TOKEN_ID={token['id']}"
        self.replaced["KALTURA_APP_TOKEN=..."] = f"KALTURA_APP_TOKEN={token['token']}"


def _is_installed(name: str) -> bool:
    return any(os.access(Path(folder) / name, os.X_OK) for folder in os.environ["PATH"].split(":"))
