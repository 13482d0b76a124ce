"""What a run is to read.  Every mode is one of these plans; the engine is the same for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from etl.coverage import EVERYTHING, Span

if TYPE_CHECKING:
    from etl.warehouse.store import Warehouse


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One list to cover."""

    target: Span = EVERYTHING
    open_only: bool = False
    """The list of open tokens instead of the whole one."""
    newest_first: bool = False
    """For a target that begins near the end of the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Legs to walk, one after the other, and ids to ask for."""

    mode: str
    """As in ``sync_run``."""
    legs: tuple[Leg, ...] = ()
    token_ids: tuple[str, ...] = ()
    """Distinct."""
    range_from: datetime | None = None
    range_to: datetime | None = None
    """Both included; None is open."""
    full_because: str | None = None
    """Why a run that was to be incremental is a full one."""
    expected_tokens: int | None = None
    """Tokens that it will read, as far as the warehouse knows."""
    expected_requests: int | None = None


Planner = Callable[["Warehouse"], RunPlan]
"""Makes the plan when the lease is free: it depends on what was published last."""
