"""``kaltura-etl simulate``: a simulated Kaltura service, for trials and experiments."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 picks any free port.")
@click.option(
    "--account", "account_file", metavar="FILE", help="Serve the objects of a list reply."
)
@click.option(
    "--tokens", type=click.IntRange(min=0), help="Generate an account of this many tokens."
)
@click.option(
    "--kind",
    type=click.Choice(["mixed", "plain", "hostile", "odd"]),
    default="mixed",
    show_default=True,
    help="What the names and rows of a generated account look like.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--until",
    metavar="TIME",
    help="When the generated account ends, such as 2026-01-05; default: now.  Only with this "
    "does a seed give the same account on another day.",
)
@click.option("--partner-id", type=int, help="Default 102, or the partner id in FILE.")
@click.option("--admin-secret", help="Default: that of the recorded account.")
@click.option(
    "--latency-ms", type=click.FloatRange(min=0), default=0.0, help="Delay of each reply."
)
@click.option(
    "--row-latency-ms",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Further delay for each row of a reply.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    help="Work on at most N requests at a time; 0 for any number.",
)
@click.option("--page-cap", type=click.IntRange(min=1), default=500, show_default=True)
@click.option(
    "--churn-delete", type=click.FloatRange(min=0), default=0.0, help="Events per request."
)
@click.option(
    "--churn-insert", type=click.FloatRange(min=0), default=0.0, help="Events per request."
)
@click.option(
    "--churn-change", type=click.FloatRange(min=0), default=0.0, help="Events per request."
)
@click.option(
    "--churn-mode",
    type=click.Choice(["uniform", "hostile"]),
    default="uniform",
    help="hostile deletes tokens that have been read already.",
)
@click.option(
    "--shuffle-ties", is_flag=True, help="Reorder tokens of the same second on every request."
)
@click.option("--fault", "faults", multiple=True, metavar="KIND", help="May be repeated.")
@click.option(
    "--fault-rate", type=click.FloatRange(0, 1), default=1.0, help="Share of the requests."
)
@click.option("--fault-count", type=click.IntRange(min=1), help="Only the first N requests.")
@click.option(
    "--fault-where",
    type=click.Choice(["any", "login", "list", "idIn", "other"]),
    default="any",
    help="Only requests of this kind.",
)
@click.option(
    "--poison",
    multiple=True,
    metavar="ID",
    help="Id of a token that makes every page with it fail.",
)
def simulate(**options: Any) -> None:
    """Serve a simulated Kaltura on the loopback interface until interrupted.

    Prints one line, "listening on http://127.0.0.1:PORT", when it is ready.
    """
    import gc
    import signal
    import threading

    server = _make_server(options)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server.start()
    except OSError as exc:
        raise click.UsageError(
            f"Port {options['port']} cannot be used: {exc.strerror or exc}."
        ) from exc
    # The account lives as long as the process; scanning it for garbage costs time.
    gc.collect()
    gc.freeze()
    click.echo(f"listening on {server.url}")
    stop.wait()
    server.close()


def _end_of_account(until: str | None) -> int:
    """In Unix seconds."""
    import time

    from etl.cli.backfill_input import read_moment
    from etl.errors import UsageError

    if until is None:
        return int(time.time())
    try:
        return int(read_moment("--until", until, is_end=False).timestamp())
    except UsageError as exc:
        raise click.UsageError(str(exc)) from exc


def _make_server(options: dict[str, Any]) -> Any:
    """The server that the options describe; click.UsageError for what cannot be."""
    from etl.simulator import (
        DEFAULT_ADMIN_SECRET,
        Churn,
        Faults,
        SimulatorServer,
        account_from_file,
        generate_account,
    )

    if (options["account_file"] is None) == (options["tokens"] is None):
        raise click.UsageError("Give either --account FILE or --tokens N.")
    seed = options["seed"]
    try:
        if options["account_file"] is not None:
            account = account_from_file(options["account_file"], partner_id=options["partner_id"])
        else:
            partner_id = options["partner_id"] if options["partner_id"] is not None else 102
            account = generate_account(
                options["tokens"],
                seed=seed,
                kind=options["kind"],
                partner_id=partner_id,
                now=_end_of_account(options["until"]),
            )
    except OSError as exc:
        raise click.UsageError(
            f"{options['account_file']} cannot be read: {exc.strerror or exc}."
        ) from exc
    except ValueError as exc:
        raise click.UsageError(f"{exc}.") from exc
    unknown = [one for one in options["poison"] if not account.find(one)]
    if unknown:
        raise click.UsageError(f"--poison {unknown[0]}: the account has no token with this id.")
    faults = Faults(seed)
    if options["faults"]:
        try:
            faults.schedule(
                options["faults"],
                where=options["fault_where"],
                rate=options["fault_rate"],
                first=options["fault_count"],
            )
        except ValueError as exc:
            raise click.UsageError(f"{exc}.") from exc
    rates = {name: options[f"churn_{name}"] for name in ("delete", "insert", "change")}
    churn = Churn(**rates, mode=options["churn_mode"], seed=seed) if any(rates.values()) else None
    return SimulatorServer(
        account,
        admin_secret=options["admin_secret"] or DEFAULT_ADMIN_SECRET,
        port=options["port"],
        seed=seed,
        latency_seconds=options["latency_ms"] / 1000,
        row_latency_seconds=options["row_latency_ms"] / 1000,
        workers=options["workers"],
        page_cap=options["page_cap"],
        shuffle_ties=options["shuffle_ties"],
        churn=churn,
        faults=faults,
        poison=options["poison"],
    )
