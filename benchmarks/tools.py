"""What is measured: this program, and its peers (``benchmarks.peers``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.program import clean_environment, program
from benchmarks.service import ADMIN_SECRET, PARTNER_ID, Simulator

OURS = "kaltura-etl"


@dataclass(frozen=True, slots=True)
class Tool:
    """One way to keep the tokens of an account in Postgres."""

    name: str
    command: tuple[str, ...]
    listed: str
    """A query for the ids that are listed, as this tool knows it."""
    migrated: bool = False
    """Whether its database is a copy of the migrated template."""
    work_mem: str | None = None
    """The database's work_mem; None leaves the server's."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def settings(self, service: Simulator, database_url: str, folder: Path) -> dict[str, str]:
        """The environment of one run; ``folder`` is the same in every run on one database."""
        return clean_environment(
            KALTURA_SERVICE_URL=service.url,
            KALTURA_PARTNER_ID=str(PARTNER_ID),
            KALTURA_ADMIN_SECRET=ADMIN_SECRET,
            DATABASE_URL=database_url,
            PEER_FOLDER=str(folder),
            **self.environment,
        )


def this_program(concurrency: int, options: tuple[str, ...] = ()) -> Tool:
    """A full ``kaltura-etl sync``."""
    return Tool(
        name=OURS,
        command=(*program(), "sync", "--json", *options),
        listed="select token_id from kaltura.upload_token where is_listed",
        migrated=True,
        environment={"ETL_CONCURRENCY": str(concurrency)},
    )
