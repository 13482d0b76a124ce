"""A few cases of each campaign in ``./dev test``, more of them in ``./dev test all``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.campaigns.campaign import Campaign, Ground
from tests.campaigns.catalogue import CAMPAIGNS
from tests.support.job import tell

IN_SLICE = [each for each in CAMPAIGNS.values() if each.in_slice]


@pytest.fixture(scope="module")
def ground(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    """One for all campaigns: they share scenes that take long to make."""
    folder: Path = tmp_path_factory.mktemp("campaigns")
    with closing(Ground(postgres_url, template_database, folder)) as made:
        yield made


def run(campaign: Campaign, ground: Ground, seeds: Iterable[int]) -> None:
    for seed in seeds:
        try:
            ending = campaign.run(ground, seed)
        except BaseException as error:
            error.add_note(f"again: ./dev campaign {campaign.name} --seed {seed} --cases 1")
            raise
        tell({"seed": seed, "case": ending.case, "result": ending.result})


@pytest.mark.parametrize("campaign", IN_SLICE, ids=lambda each: each.name)
def test_slice(campaign: Campaign, ground: Ground) -> None:
    first = campaign.first_of_slice
    run(campaign, ground, range(first, first + campaign.in_slice))


@pytest.mark.campaign
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("campaign", CAMPAIGNS.values(), ids=lambda each: each.name)
def test_moderately(campaign: Campaign, ground: Ground) -> None:
    first = campaign.first_of_slice + campaign.in_slice
    run(campaign, ground, range(first, first + campaign.in_all))
