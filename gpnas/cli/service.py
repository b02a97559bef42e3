"""The commands of the service, for the parser."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gpnas.cli.arguments import above_zero, natural, path, positive, repeatable

if TYPE_CHECKING:
    from gpnas.cli.parser import Commands

ROLES = ("read", "work", "own")
"""The roles of `gpnas.service.tokens`, which need not be imported for a parser."""


def add_serve(commands: Commands) -> None:
    """Adds `gpnas serve`."""
    serve = commands.add(
        "serve", "serve the searches of a folder over HTTP, to people and machines", "--runs runs"
    )
    option = serve.add_argument
    _add_runs(serve)
    option("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    option("--port", type=natural, default=8750, help="port; 0 takes a free one (default: 8750)")
    repeatable(
        serve,
        "host-name",
        "NAME",
        "a name by which the service is called besides --host and localhost; repeatable",
    )
    option(
        "--address",
        metavar="URL",
        help="of a Ray cluster's dashboard; drivers of managed searches are its jobs (default: they share "
        "one on this machine)",
    )
    option(
        "--trainers",
        metavar="DIR",
        type=path,
        help="folder whose Python files spaces that are sent may name as `trainer` (default: none may)",
    )
    option("--certificate", metavar="FILE", type=path, help="of TLS, in PEM")
    option("--key", metavar="FILE", type=path, help="of the certificate, in PEM")


def add_token(commands: Commands) -> None:
    """Adds `gpnas token` and what is beneath it."""
    group = commands.add_group("token", "make, list and revoke tokens of the service")
    beneath = type(commands)(group, "token ")
    make = beneath.add("make", "make a token and print it, once", "--role work --name 'a desk'")
    every = beneath.add("list", "list all tokens, without their secrets", "")
    revoke = beneath.add("revoke", "end the validity of a token, at once", "5f0c2a917be4")
    for sub, action in ((make, "make"), (every, "list"), (revoke, "revoke")):
        sub.set_defaults(module="token", action=action)
        _add_runs(sub)
    make.add_argument(
        "--role", choices=ROLES, required=True, help="look; also ask and tell; also begin, end and delete"
    )
    make.add_argument("--name", default="", help="what it is for, shown by `gpnas token list`")
    revoke.add_argument("id", metavar="ID", help="as `gpnas token list` shows it")


def add_worker(commands: Commands) -> None:
    """Adds `gpnas worker`."""
    worker = commands.add(
        "worker",
        "train what a service asks for, on any machine",
        "http://127.0.0.1:8750 --search digits --train train.py:train --token-file runs/.service/token",
    )
    option = worker.add_argument
    option("url", metavar="URL", help="of the service")
    option("--search", metavar="ID", required=True, help="which search to train for")
    option("--train", metavar="FUNCTION", required=True, help="as train.py:train or package.module:train")
    option("--name", help="shown to people (default: this machine's, and the process)")
    option("--token-file", metavar="FILE", type=path, help="(default: the variable GPNAS_TOKEN)")
    option("--folder", type=path, default=path("work"), help="where trials keep checkpoints (default: work)")
    option("--lease-seconds", type=above_zero, default=300.0, help="without a heartbeat (default: 300)")
    option(
        "--patience",
        type=above_zero,
        default=3_600.0,
        help="seconds for which a service that is not there is waited for (default: 3600)",
    )
    option("--most", type=positive, help="trainings after which it ends (default: any number)")
    option("--trial-hours", type=above_zero, help="longest attempt at a training (default: any)")
    option("--max-parameters", type=above_zero, help="of what it can train")
    option("--max-gmacs", type=above_zero, help="of what it can train")
    option("--max-memory", metavar="BYTES", type=above_zero, help="that a training step holds, as 8e9")
    option("--max-seconds", type=above_zero, help="that a training is expected to take, by those so far")
    option("--authorities", metavar="FILE", type=path, help="to trust for TLS (default: the system's)")


def _add_runs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--runs", metavar="DIR", type=path, default=path("runs"), help="folder of run folders (default: runs)"
    )
