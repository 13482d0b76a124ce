"""A warehouse to export: two accounts, versions, absences, and names that somebody chose to do
harm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from etl.simulator import Account, SimulatorServer, generate_account
from tests.support.job import Job
from tests.support.report_sample import HOSTILE

USER = "anna.canary@example.edu"
FILE_NAME = "canary thesis.mp4"
FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""What a formula begins with; the last four are = + - @ in full width."""
NAMES = {
    **HOSTILE,
    **{f"begins {first!r}": f"{first}cmd|' /C calc'!A0" for first in FORMULA},
    "number": "-5",
    "made safe before": "'=1+1",
    "made safe before, full width": "'\uff1d1+1",
    "line, made safe before": "''\n=1+1",
    "twice": "''@x",
    "apostrophe": "'twas",
    "quoted": '"a";b,c\\N',
    "behind a semicolon": "film;=1+1;-2;\uff1d3;'@x;plain",
    "behind a quote": """film;"=1+1";""'+2;\"""",
    "behind a line": "film\n=1+1\t;\t=2\r\nplain",
    "backslash": "\\.",
    "null": "NULL",
    "space": " ",
}


@dataclass
class Sample:
    """The accounts, of which the first lives on."""

    job: Job
    account: Account
    other_partner: int

    def insert(self, number: int, **fields: object) -> None:
        token = {"id": f"0_sample_{number:04}", "status": 1, "createdAt": self._created + number}
        self.account.insert(token | fields)

    @property
    def _created(self) -> int:
        return min(int(self.account.fields(token)["createdAt"]) for token in self.account.line)


@contextmanager
def export_sample(database_url: str) -> Iterator[Sample]:
    """The service of the first account runs as long as the context."""
    with SimulatorServer(generate_account(20, seed=9, partner_id=103)) as other:
        Job.of(other, database_url).run()
    with SimulatorServer(generate_account(60, seed=8)) as server:
        sample = Sample(Job.of(server, database_url, ETL_ABSENCE_GRACE="0s"), server.account, 103)
        for number, name in enumerate(NAMES.values()):
            sample.insert(number, fileName=name, userId=name, unknownKey={"ü": [1.50, name]})
        sample.insert(900, fileName=FILE_NAME, userId=USER, fileSize=2**62)
        sample.insert(901, status=0)
        sample.insert(902, userId="renamed")
        sample.job.run()
        for token in list(server.account.line)[::7]:
            server.account.change(token.id, {"status": 3, "uploadedFileSize": 5})
        server.account.change("0_sample_0902", {"userId": "renamed.since"})
        server.account.delete(next(iter(server.account.line)).id)
        sample.job.run()
        yield sample
