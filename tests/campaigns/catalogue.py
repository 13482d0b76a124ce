"""All campaigns, the most important first."""

from __future__ import annotations

from typing import Final

from tests.campaigns.accounts import ACCOUNTS_CAMPAIGN
from tests.campaigns.api_faults import API_FAULTS
from tests.campaigns.bad_data import BAD_DATA
from tests.campaigns.both_ways import BOTH_WAYS
from tests.campaigns.campaign import Campaign
from tests.campaigns.clocks import CLOCKS
from tests.campaigns.concurrency import CONCURRENCY
from tests.campaigns.database import DATABASE
from tests.campaigns.migrations import MIGRATIONS
from tests.campaigns.mutation import MUTATION
from tests.campaigns.process import PROCESS
from tests.campaigns.security import SECURITY
from tests.campaigns.stateful import STATEFUL
from tests.campaigns.walk import WALK

CAMPAIGNS: Final[dict[str, Campaign]] = {
    each.name: each
    for each in (
        API_FAULTS,
        PROCESS,
        DATABASE,
        MUTATION,
        WALK,
        BAD_DATA,
        ACCOUNTS_CAMPAIGN,
        CONCURRENCY,
        CLOCKS,
        MIGRATIONS,
        STATEFUL,
        BOTH_WAYS,
        SECURITY,
    )
}
