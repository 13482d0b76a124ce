"""What a run tells to whoever keeps its replies (the archive); the engine knows no more of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from etl.warehouse.ledger.run import OpenRun, StagedPage


class Recorder(Protocol):
    """Keeps every reply that a run stages.  Called from one thread; a dry run has none."""

    def begin(self, run: OpenRun) -> bool:
        """The run is open and has read nothing yet.

        False: it resumed a walk of which some replies were not kept, so the walk must start over.
        Raises ConfigurationError or WarehouseUnavailable where replies cannot be kept.
        """

    def record(self, run: OpenRun, pages: Sequence[StagedPage], *, lookup: bool) -> None:
        """These pages, their ``seq`` set, are staged next, in one transaction.

        ``lookup``: the one page goes to ``Warehouse.stage_lookup`` with its ``asked``; else all go
        to ``Warehouse.stage_batch``.  What was recorded and is not in ``sync_page`` afterwards was
        not staged.  Raises WarehouseUnavailable; the run then fails without publishing.
        """

    def finish(self, run: OpenRun) -> None:
        """The run has published.  What is left undone here, ``begin`` of a later run does."""
