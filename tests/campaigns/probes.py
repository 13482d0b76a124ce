"""The probes of an attacker, and what shows how each of them ends.

``docs/evidence.md`` prints this table; a test makes sure that what it names is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to try, and the tests or campaigns that try it."""

    what: str
    shown: tuple[str, ...] = ()
    """``campaign NAME``, or a file in tests, with ``::`` and a test of it."""
    not_done: str = ""
    """What of it, or why, is not shown."""


FORBIDDEN: Final = "integration/roles/test_roles_forbidden.py"
ADDRESSES: Final = "faults/service/test_addresses_and_tls.py"
VARIABLE_FILE: Final = "unit/test_settings_variable_file.py"
DATABASE_URL: Final = "unit/test_settings_database_url.py"

PROBES: Final = (
    Probe(
        "Secrets in logs at DEBUG, results, metrics, archive and tables, in any encoding",
        ("campaign security", "cli/test_check.py::test_no_secret_gets_out_at_debug"),
        "the log of the Postgres server and core files are not searched",
    ),
    Probe(
        "An error of the service that echoes the session or another secret",
        ("campaign security", "unit/test_kaltura_shown.py"),
    ),
    Probe(
        "A secret as an option of the command line",
        ("unit/test_settings.py::test_no_secret_has_a_flag_in_any_command",),
    ),
    Probe(
        "Secrets in the list of processes",
        ("cli/test_psql.py::test_no_password_is_on_the_command_line",),
        "`psql` is the only program that gets one; others have no option to pass it",
    ),
    Probe(
        "Secrets in the environment of child processes",
        not_done="only `psql` and the embedded Postgres are started; what they inherit is not "
        "searched",
    ),
    Probe(
        "A secret file that others can read, a link, a folder that everybody can write to",
        (
            f"{VARIABLE_FILE}::test_refuses_a_file_that_others_can_read_or_change",
            f"{VARIABLE_FILE}::test_follows_a_link_inside_the_folder_but_not_out_of_it",
            f"{VARIABLE_FILE}::test_refuses_a_folder_that_everybody_can_write_to",
        ),
    ),
    Probe(
        "A malformed database address with a password",
        (
            f"{DATABASE_URL}::test_refuses_without_a_fragment_of_the_password",
            "integration/load/test_lease.py::test_wrong_url_is_refused_without_repeating_it",
        ),
    ),
    Probe(
        "An unhandled exception: values, rows and parameters in it",
        (
            "cli/test_program.py::test_a_bug_is_one_line_without_values",
            "unit/test_log.py::test_an_exception_shows_places_but_no_values",
        ),
    ),
    Probe(
        "DETAIL and parameters of a statement that failed",
        ("integration/load/test_lease.py::test_error_of_postgres_becomes_ours_without_its_text",),
    ),
    Probe(
        "Other libraries' loggers at DEBUG",
        ("unit/test_log.py::test_only_our_own_loggers_are_heard_below_warning",),
    ),
    Probe(
        "The session in an address",
        (
            "faults/service/test_requests.py"
            "::test_the_requests_are_exactly_those_that_the_service_understands",
        ),
    ),
    Probe(
        "A redirect to another host, to plain HTTP, to a metadata service",
        (
            "faults/service/test_permanent_faults.py"
            "::test_a_redirect_is_not_followed_and_the_secret_goes_nowhere",
        ),
    ),
    Probe(
        "An address without TLS",
        (f"{ADDRESSES}::test_an_address_that_must_not_be_used_is_a_wrong_setting",),
    ),
    Probe(
        "A certificate that is self-signed, expired or another's; an old version of TLS",
        (
            f"{ADDRESSES}::test_a_certificate_that_is_not_acceptable_is_not_tried_again",
            f"{ADDRESSES}::test_an_old_tls_version_is_refused",
        ),
    ),
    Probe(
        "Proxies, authorities and passwords planted in the environment",
        ("faults/service/test_proxies.py::test_the_environment_is_not_read_unless_asked_for",),
    ),
    Probe(
        "A distant Postgres that is not proved",
        ("integration/servers/test_as_found.py::test_a_connection_that_others_can_read_is_told",),
        "a warning, not a refusal; a proxy that refuses TLS is not tried",
    ),
    Probe(
        "A password that Postgres checks by MD5",
        not_done="`check` does not look at how Postgres stores passwords",
    ),
    Probe(
        "The loader's role: changing the past, defining, dropping, files, other roles",
        (
            f"{FORBIDDEN}::test_the_loader_cannot_change_the_past",
            f"{FORBIDDEN}::test_no_write_beyond_what_was_granted",
            f"{FORBIDDEN}::test_no_way_out_into_the_server_or_up_to_the_owner",
        ),
    ),
    Probe(
        "The analyst's role: writing, raw rows, statistics, sessions of others",
        (
            f"{FORBIDDEN}::test_readers_change_nothing_and_see_no_payload",
            f"{FORBIDDEN}::test_statistics_and_sessions_tell_the_analyst_nothing",
            f"{FORBIDDEN}::test_no_write_through_a_view",
        ),
        "accounts of one warehouse are not hidden from its analysts",
    ),
    Probe(
        "A nightly run by a role that may too much",
        ("integration/roles/test_roles_grant.py",),
        "`check` warns of it; the run is not refused",
    ),
    Probe(
        "Ids with quotes, percent signs and backslashes",
        (
            "integration/privacy/test_erase.py::test_odd_user_ids",
            "integration/roles/test_roles_grant_statements.py::test_names_of_every_kind_are_quoted",
        ),
        "`ruff` refuses statements that are put together from strings (S608)",
    ),
    Probe(
        "Wildcards in filters of the command line",
        ("integration/privacy/test_erase.py::test_odd_user_ids",),
    ),
    Probe(
        "Formulas in tables for spreadsheets",
        not_done="the program writes neither CSV nor spreadsheets",
    ),
    Probe(
        "Markup, escape sequences and marks of direction in names",
        (
            "report/test_page.py::test_names_that_people_chose_are_text",
            "report/test_browser.py::test_the_policy_stops_what_would_be_fetched",
            "cli/test_tables.py::test_what_a_stranger_named_cannot_steer_the_terminal",
        ),
    ),
    Probe(
        "Compressed bombs, replies without end, nesting without end",
        ("faults/service/test_reply_bounds.py", "campaign api-faults"),
    ),
    Probe("One byte a minute", ("faults/service/test_deadline.py", "campaign api-faults")),
    Probe(
        "An uploadUrl that points into the network",
        (
            "faults/service/test_requests.py"
            "::test_the_requests_are_exactly_those_that_the_service_understands",
        ),
        "it is text that is stored; not tried in a network of its own",
    ),
    Probe(
        "A network that lets only the service and Postgres through",
        not_done="needs a network of its own",
    ),
    Probe(
        "Rows of another account in a reply",
        (
            "campaign api-faults",
            "integration/modes/test_sync_refusals.py::test_a_row_of_another_account",
        ),
    ),
    Probe(
        "A package that was changed after it was locked",
        ("unit/test_supply_chain.py::test_what_was_changed_after_it_was_locked_is_not_installed",),
    ),
    Probe(
        "Known vulnerabilities, and the list of what is installed",
        ("unit/test_supply_chain.py::test_the_verdict_of_an_audit",),
        "`./dev audit` asks the index when it is run; `./dev sbom` writes the list",
    ),
    Probe(
        "A private name on a public index",
        (
            "unit/test_supply_chain.py::test_every_package_of_a_lock_file_has_a_version_and_hashes",
            "unit/test_supply_chain.py::test_dev_installs_by_hash_only",
        ),
    ),
    Probe(
        "Side effects of an import, modules in the working directory",
        ("cli/test_program.py::test_help_imports_nothing_that_is_slow",),
        "modules that are planted in the working directory are not tried",
    ),
    Probe(
        "A container without root, with files that cannot be written",
        ("campaign process",),
        "read-only files are tried as root; a container is not",
    ),
    Probe(
        "The embedded Postgres from another user of the machine",
        ("integration/test_embedded.py::test_server_is_durable_private_and_has_no_port",),
    ),
    Probe(
        "Real people in test data",
        not_done="accounts are generated, or recorded from an installation made for it; no search "
        "can tell",
    ),
    Probe(
        "An erased person in any table or archive, or back with the next night",
        (
            "campaign stateful",
            "campaign concurrency",
            "integration/privacy/test_erase.py::test_a_user_is_erased_everywhere_and_stays_erased",
        ),
    ),
    Probe(
        "Erasures and prunes without a record, or one that the loader can delete",
        (
            "integration/privacy/test_erase_account.py"
            "::test_nothing_of_an_account_is_left_but_the_record",
            "integration/privacy/test_prune.py::test_pruned_pages_excuse_no_lost_ones",
            f"{FORBIDDEN}::test_the_loader_cannot_change_the_past",
        ),
        "changes of roles and edits by hand leave no record of their own",
    ),
    Probe(
        "An edit of the past by a superuser",
        (
            "integration/verify/test_verify.py"
            "::test_an_edit_of_the_past_is_found_where_it_does_not_fit",
            "integration/verify/test_verify.py::test_an_edit_without_its_digest_is_found",
        ),
        "one that fits everything else is not found: versions are not chained by a key",
    ),
)


def probe_row(probe: Probe) -> str:
    """A row of the table in ``docs/evidence.md``."""
    shown = "<br>".join(f"`{each}`" for each in probe.shown)
    if probe.not_done:
        left = f"{'but ' if probe.shown else 'not done: '}{probe.not_done}"
        shown = f"{shown}<br>{left}" if shown else left
    return f"| {probe.what} | {shown} |\n"
