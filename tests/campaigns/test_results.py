"""Results of campaigns: kept, continued, summed up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.campaigns.__main__ import listing, main
from tests.campaigns.campaign import Campaign, Ending, Ground
from tests.campaigns.catalogue import CAMPAIGNS
from tests.campaigns.evidence import PAGE, evidence, row
from tests.campaigns.probes import PROBES, Probe, probe_row
from tests.campaigns.results import Result, done_seeds, file_of, read_results, sum_up
from tests.campaigns.runner import run_one
from tests.support.job import ROOT


def odd(ground: Ground, seed: int) -> Ending:
    """A promise that odd seeds break."""
    del ground
    assert seed % 2 == 0, "odd"
    return Ending("a case", "even", {"seeds": seed})


TRIAL = Campaign(name="trial", promise="Seeds are even.", run=odd, in_slice=1, in_all=2, table=7)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    with closing(Ground("postgresql://nowhere", "none", tmp_path)) as made:
        yield made


def write(folder: Path, *results: Result) -> None:
    with file_of("trial", folder).open("ab") as file:
        for each in results:
            file.write(msgspec.json.encode(each) + b"\n")


def test_a_broken_promise_is_a_result_with_its_place(ground: Ground) -> None:
    held, broke = (run_one(TRIAL, ground, seed, program="abc") for seed in (2, 3))
    assert (held.breach, held.result, held.figures) == (None, "even", {"seeds": 2})
    assert broke.breach is not None
    assert broke.breach.startswith("AssertionError: odd")
    assert "test_results.py, line" in broke.breach


def test_a_case_that_does_not_end_is_a_breach(ground: Ground) -> None:
    def wait(ground: Ground, seed: int) -> Ending:
        del ground, seed
        while True:
            pass

    stuck = Campaign(name="s", promise="", run=wait, in_slice=1, in_all=1, stuck_seconds=1)
    result = run_one(stuck, ground, 0, program="abc")
    assert result.breach is not None
    assert "stuck" in result.breach


def test_what_held_is_not_run_again_and_what_was_mended_is_counted(
    tmp_path: Path, ground: Ground
) -> None:
    for seed in (2, 3, 4, 5):
        write(tmp_path, run_one(TRIAL, ground, seed, program="abc"))
    assert done_seeds("trial", None, tmp_path) == {2, 4}
    assert done_seeds("trial", 100, tmp_path) == set()
    write(tmp_path, Result("trial", 3, 1.0, "abc", result="even"))
    with file_of("trial", tmp_path).open("ab") as file:
        file.write(b'{"campaign":"tri')  # the machine went down
    assert done_seeds("trial", None, tmp_path) == {2, 3, 4}
    total = sum_up(read_results("trial", tmp_path))
    assert (total.cases, total.seeds, total.broke, total.mended) == (5, 4, 2, 1)
    assert total.endings == {"even": 3}
    assert total.figures == {"seeds": 6}
    said = row(TRIAL, total)
    assert "2 seeds broke the promise, 1 of them held since" in said
    assert "./dev campaign trial --seed 0 --cases 2" in said


def test_the_page_has_every_campaign_as_it_is(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, campaign in CAMPAIGNS.items():
        assert f"### {name}\n\n{campaign.promise}\n" in page
        assert name in listing()
        assert all(each in page for each in (*campaign.found, *campaign.not_done))
    assert all(probe_row(probe) in page for probe in PROBES)
    empty = evidence(tmp_path)
    assert empty.count("not run here yet") == len(CAMPAIGNS)


def test_the_command_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "api-faults" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["walk", "--cases", "0"])


@pytest.mark.parametrize("probe", PROBES, ids=lambda each: each.what)
def test_what_shows_the_end_of_a_probe_is_there(probe: Probe) -> None:
    assert probe.shown or probe.not_done
    for place in probe.shown:
        if place.startswith("campaign "):
            assert place.removeprefix("campaign ") in CAMPAIGNS
            continue
        name, _, test = place.partition("::")
        text = (ROOT / "tests" / name).read_text(encoding="utf-8")
        assert not test or f"\ndef {test}(" in text
