"""A stand-in for the Kaltura service: the same requests, the same replies, over real HTTP.

``client``    the simplest client, for tests and for a simulator in another process
``http/``     sockets: ``server`` (``SimulatorServer``), ``control`` (requests under /simulator/),
              ``wire`` (framing), ``transport_faults``
``api/``      the service without sockets: ``service`` dispatches to ``upload_token`` (with
              ``listing``) and ``sessions``; ``params``, ``auth`` and ``ks`` read a request,
              ``reply`` and ``errors`` answer it, ``reply_faults`` spoils it; ``churn``
``account/``  one partner's tokens and the truth about what was listed when; ``generate``, ``life``
``faults``    the kinds of faults, and which request gets which
``message``   one HTTP request and one reply

Arrows: client, http > api > account | faults > message.  It imports nothing of the rest of the
program.  It replies as the recorded replies of a live server do (``tests/conformance``), and adds
what a test needs and the real service cannot give: churn, faults, and the truth.

Public is what this module exports, and what ``docs/reference/simulator.md`` describes:

    >>> from etl.simulator import SimulatorServer, generate_account
    >>> with SimulatorServer(generate_account(20_000, seed=1)) as server:
    ...     server.url
    'http://127.0.0.1:40213'
"""

from __future__ import annotations

from etl.simulator.account.account import Account
from etl.simulator.account.generate import account_from_file, generate_account
from etl.simulator.account.life import Life
from etl.simulator.api.churn import Churn
from etl.simulator.api.directory import DEFAULT_ADMIN_SECRET, Directory, Partner
from etl.simulator.client import SimulatorClient
from etl.simulator.faults import FAULT_KINDS, Fault, Faults
from etl.simulator.http.server import SimulatorServer

__all__ = [
    "DEFAULT_ADMIN_SECRET",
    "FAULT_KINDS",
    "Account",
    "Churn",
    "Directory",
    "Fault",
    "Faults",
    "Life",
    "Partner",
    "SimulatorClient",
    "SimulatorServer",
    "account_from_file",
    "generate_account",
]
