"""Writes ``docs/evidence.md`` from the sums of the campaigns."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.campaigns.campaign import Campaign
from tests.campaigns.catalogue import CAMPAIGNS
from tests.campaigns.probes import PROBES, probe_row
from tests.campaigns.results import FOLDER, Sum, read_results, sum_up
from tests.support.job import ROOT

PAGE: Final = ROOT / "docs" / "evidence.md"

HEAD: Final = """# Evidence

What the program promises when something goes wrong, how that was tried, and what it does not
promise. Each row is a *campaign*: cases made from seeds, run against a real Postgres and a real
HTTP server. The same seed is the same case. Where a case leaves a warehouse, the warehouse must
agree with the truth of the simulated account and every check of `kaltura-etl verify` must pass, and
where a run was disturbed, a normal run must reach the state that an undisturbed one leaves: 0
tokens lost, 0 versions twice, 0 false absences, 0 mixed reads, 0 runs stuck. Anything else is a
*breach*. Three campaigns compare something else: `walk` reads lists in memory and has no warehouse,
`both-ways` compares the tables of two warehouses with each other, and `security` searches what was
written.

This page is written by `./dev campaign evidence` from the results in `.campaigns/` (see
[CONTRIBUTING](../CONTRIBUTING.md#campaigns)). It sums up every case that was run there, also those
that were run while the program was being mended; "held since" counts the seeds whose promise was
broken once and held the last time they were run.

## Promises
"""

PROBES_HEAD: Final = """
## Probes of an attacker

What was tried, and the campaign or the test (in `tests/`) that shows how it ends.

| Probe | Shown by |
| --- | --- |
"""

NOT_PROMISED: Final = """
## What is not promised

- States between two runs. The service shows only the present: what a token was between two nights
  is not known to anybody but it.
- A token that is created and deleted during one run may never appear.
- The time of a deletion: it lies between the last run that saw the token and the first that did
  not.
- Completeness, if the service breaks one of the [assumptions](why.md#assumptions): `createdAt` of a
  token does not change, and a page is one consistent slice of the list. A page from which rows are
  missing in the middle, and that says so in no way, would be taken for the truth; a known token
  that is missing there is still looked up by its id before it counts as absent.
- A bound on the requests for an unreadable row among several tokens of one second, if the service
  gives these in another order each time: up to 46 were counted, where the bound for rows that stay
  in their place is 38 (pages of 500). And that every list with ten such rows, as many as are
  allowed, is published: with pages of 500 rows 61 of 67 were (in the others 11 were counted), with
  pages of 5 or 6 rows 6 to 7 of 8; the others were refused.
- Times that a database server's clock told while it was wrong: they stay in the rows, and `verify`
  may name them (`published_within_run`, `absence_times_ordered`). Runs go on, and are
  published.
- Fewer requests for known unreadable rows in lists whose tied rows change their order each time.
- Whatever a database administrator changes in the tables by hand. `verify` finds what its checks
  describe (`docs/reference/verify.md`).
- Protection of a machine: full-disk encryption, backups and access to the server are the
  operator's.
"""


def evidence(folder: Path = FOLDER) -> str:
    """The page."""
    sums = {name: sum_up(read_results(name, folder)) for name in CAMPAIGNS}
    cases = sum(each.cases for each in sums.values())
    hours = sum(each.seconds for each in sums.values()) / 3600
    parts = [HEAD, *(row(campaign, sums[name]) for name, campaign in CAMPAIGNS.items())]
    parts.append(
        f"\nIn all: {cases:,} cases, {hours:.1f} hours of one processor core at most; "
        f"{sum(each.broke - each.mended for each in sums.values())} breaches are open.\n"
    )
    found = [f"- `{name}`: {each}" for name, c in CAMPAIGNS.items() for each in c.found]
    parts.append("\n## Found and mended\n\n" + ("\n".join(found) or "- nothing yet") + "\n")
    not_done = [f"- `{name}`: {each}" for name, c in CAMPAIGNS.items() for each in c.not_done]
    parts.append("\n## Not tried by a campaign\n\n" + "\n".join(not_done) + "\n")
    parts += [PROBES_HEAD, *map(probe_row, PROBES), NOT_PROMISED]
    return "".join(parts)


def row(campaign: Campaign, total: Sum) -> str:
    """The paragraph of a campaign."""
    combinations = ""
    if campaign.table is not None:
        combinations = f", of which each {campaign.table} in a row meet every combination once"
    said = f"\n### {campaign.name}\n\n{campaign.promise}\n\n"
    if not total.cases:
        said += "- not run here yet\n"
    else:
        said += f"- {total.cases:,} cases ({total.seeds:,} seeds{combinations})\n"
        said += (
            f"- {total.broke} seeds broke the promise, {total.mended} of them held since\n"
            if total.broke
            else "- no seed broke the promise\n"
        )
        endings = ", ".join(f"{name} {count:,}" for name, count in total.endings.most_common(12))
        said += f"- endings: {endings}\n"
        if total.figures:
            figures = ", ".join(f"{name} {count:,}" for name, count in total.figures.items())
            said += f"- {figures}\n"
    return said + (
        f"- again: `./dev campaign {campaign.name} --seed 0 --cases {campaign.in_all}`\n"
    )
