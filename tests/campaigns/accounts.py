"""Many accounts in one warehouse, every mode, the last of them new."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.backfill import Range, backfill_range
from etl.run.plan import SyncOptions
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from tests.campaigns.campaign import Campaign, Ending, Ground
from tests.support.job import Job, listed
from tests.support.model import Model, assert_same

ACCOUNTS: Final = 50
SIZES: Final = (1, 20, 60, 120, 300)
FIRST_PARTNER: Final = 1_001


@dataclass
class Tenant:
    """An account, and what the warehouse must hold of it."""

    server: SimulatorServer
    job: Job
    model: Model
    runs: int = 0

    def live(self, rng: random.Random) -> None:
        self.server.life().advance(24)
        tokens = list(self.server.account.line)
        for token in rng.sample(tokens, min(len(tokens) // 20, 5)):
            self.server.account.delete(token.id)

    def run(self, mode: str) -> None:
        """One run; after a full one the warehouse holds what the service lists."""
        if mode == "backfill":
            settings = load_settings(environment=self.job.environment()).checked()
            everything = Range(datetime(1990, 1, 1, tzinfo=UTC), None)
            backfill_range(
                settings,
                SyncOptions(mode=mode),
                everything,
                stop=Stop(),
                progress=NoProgress(),
            )
        else:
            self.job.run(options=SyncOptions(mode=mode))
        self.runs += 1

    def assert_known(self) -> None:
        self.model.night(listed(self.server))
        assert_same(self.job.current(), self.model.current())
        assert_same(self.job.superseded(), self.model.superseded())


def run_case(ground: Ground, seed: int) -> Ending:
    rng = random.Random(seed)
    count = ACCOUNTS if ground.tokens is None else max(2, ground.tokens)
    if seed % 10:
        count = max(count // 10, 2)
    with ground.database() as database_url, ExitStack() as stack:

        def move_in(number: int) -> Tenant:
            account = generate_account(
                rng.choice(SIZES),
                seed=seed * 1_000 + number,
                partner_id=FIRST_PARTNER + number,
                open_share=0.3,
            )
            server = stack.enter_context(SimulatorServer(account, page_cap=60))
            job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s", ETL_CONCURRENCY="2")
            return Tenant(server, job, Model())

        tenants = [move_in(number) for number in range(count)]
        for tenant in rng.sample(tenants, count):
            tenant.run(rng.choice(("full", "full", "incremental", "backfill")))
            tenant.assert_known()
            if rng.random() < 0.1:  # statistics that know some of the accounts
                tenant.job.query("analyze")
        newest = move_in(count)
        modes: list[Callable[[], None]] = [
            lambda: newest.run("full"),
            lambda: newest.run("incremental"),
            lambda: newest.run("backfill"),
        ]
        rng.shuffle(modes)
        for run in modes:
            newest.live(rng)
            run()
        newest.run("full")
        for tenant in rng.sample(tenants, min(count, 5)):
            tenant.live(rng)
            tenant.run("full")
            tenant.assert_known()
        here = {key for key, row in newest.job.current().items() if row["is_listed"]}
        assert here == {fields["id"] for fields in listed(newest.server)}
        breaches = [each for each in verify(database_url) if not each.ok]
        assert not breaches, [(each.name, each.rows[:2]) for each in breaches]
    runs = sum(tenant.runs for tenant in (*tenants, newest))
    return Ending(f"{count + 1} accounts", "all as their service", {"runs": runs})


ACCOUNTS_CAMPAIGN: Final = Campaign(
    name="accounts",
    promise="Fifty accounts share a warehouse, in every mode, the last of them new: each holds "
    "what its service lists, and none is touched by another's run.",
    run=run_case,
    first_of_slice=1,
    in_slice=1,
    in_all=20,
    stuck_seconds=300,
)
