"""Secrets that must not appear in anything that a command writes, whatever it meets."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final

from etl.simulator.faults import Fault, RequestInfo
from tests.campaigns.api_faults import MEETINGS, settings_of
from tests.campaigns.campaign import Campaign, Ending, Ground
from tests.campaigns.second_night import SecondNight, second_night
from tests.support.job import Job, running
from tests.support.service_faults import CANARIES, forbidden_forms

DATABASE_PASSWORD: Final = "canary0database0password"
ERASURE_KEY: Final = "canary0erasure0key0of0forty0characters00"
COMMANDS: Final[tuple[tuple[str, ...], ...]] = (
    ("sync", "--json"),
    ("sync", "--mode", "incremental"),
    ("sync", "--dry-run", "--json"),
    ("backfill", "--from", "2025-12-01", "--to", "2025-12-31", "--json"),
    ("check",),
    ("check", "--json"),
    ("status", "--json"),
    ("verify", "--source", "5"),
)
NAMES: Final = [name for name, each in MEETINGS.items() if each.attempts == 4]
"""Faults that take no second each."""
TEXT_COLUMNS: Final = """
select format('select %%L as place, coalesce(string_agg(encode(convert_to(%%I::text, ''UTF8''), '
    '''escape''), E''\\n''), '''') as said from kaltura.%%I', table_name || '.' || column_name,
    column_name, table_name) as statement
from information_schema.columns join information_schema.tables using (table_schema, table_name)
where table_schema = 'kaltura' and table_type = 'BASE TABLE'
    and data_type in ('text', 'jsonb', 'json', 'ARRAY', 'character varying')
    and (table_name, column_name) <> ('erasure_key', 'secret')
"""


def run_case(ground: Ground, seed: int) -> Ending:
    rng = random.Random(seed)
    name = NAMES[seed % len(NAMES)]
    command = COMMANDS[seed // len(NAMES) % len(COMMANDS)]
    if rng.random() < 0.5:
        command = rng.choice(COMMANDS[:3])
    scene = second_night(ground, seed)
    folder = ground.folder / f"security-{seed}"
    folder.mkdir(exist_ok=True)
    with scene.copy(**settings_of(2)) as copied:
        job = replace(copied, database_url=with_password(copied.database_url))
        environment = job.environment() | {
            "ETL_LOG_LEVEL": "DEBUG",
            "ETL_ERASURE_KEY": ERASURE_KEY,
            "ETL_METRICS_FILE": str(folder / "metrics.prom"),
            "ETL_ARCHIVE": str(folder / "archive"),
        }
        output = folder / "output"
        sessions: set[str] = set()
        with (
            meeting(scene, MEETINGS[name].fault, rng, sessions),
            running(*command, env=environment, output=output) as process,
        ):
            code = process.wait()
        assert code != 1, output.read_text()[-2_000:]
        assert output.stat().st_size > 0
        forms = forbidden_forms([*CANARIES, DATABASE_PASSWORD, ERASURE_KEY, *sorted(sessions)])
        places = 0
        for place, said in everything_written(job, folder):
            places += 1
            for form in forms:
                assert form not in said, f"{form!r} in {place}, {command}, {name}"
    return Ending(f"{' '.join(command)}, {name}", f"exit {code}", {"places searched": places})


def with_password(url: str) -> str:
    """The server asks for none, so any will do."""
    return url.replace("postgres@", f"postgres:{DATABASE_PASSWORD}@", 1)


@contextmanager
def meeting(
    scene: SecondNight, fault: Fault, rng: random.Random, sessions: set[str]
) -> Iterator[None]:
    """A fault in the way of some of the requests; the sessions that were really used."""
    first = rng.randrange(8)
    count = 0

    def decide(info: RequestInfo) -> Fault | None:
        nonlocal count
        count += 1
        if "ks" in info.params:
            sessions.add(str(info.params["ks"]))
        return fault if first < count <= first + 2 else None

    scene.server.faults.decide_by = decide
    try:
        yield
    finally:
        scene.server.faults.clear()


def everything_written(job: Job, folder: Path) -> Iterator[tuple[str, str]]:
    """Each place where the command may have written, and what is there."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield file.name, unpacked(file).decode("latin-1")
    for column in job.query(TEXT_COLUMNS):
        for row in job.query(column["statement"].replace("%", "%%")):
            yield row["place"], row["said"]


def unpacked(file: Path) -> bytes:
    data = file.read_bytes()
    if data[:4] == b"\x28\xb5\x2f\xfd":
        from backports import zstd

        with nullcontext(data) as packed:
            return zstd.decompress(packed)
    return data


SECURITY: Final = Campaign(
    name="security",
    promise="Secrets (app token, admin secret, sessions, the database's password, the erasure key) "
    "are in nothing that a command writes: log at DEBUG, result, metrics, archive, tables; in no "
    "encoding, whatever the service answers.",
    run=run_case,
    table=len(NAMES) * len(COMMANDS),
    in_slice=2,
    in_all=120,
    not_done=("The log of the Postgres server, and core files.",),
)
