"""`gpnas worker`: trains what a service asks for."""

from __future__ import annotations

import argparse
import os
import platform
import secrets
from dataclasses import asdict
from pathlib import Path

from gpnas.cli.reporting import Report
from gpnas.cli.terminal import say
from gpnas.client import Client
from gpnas.errors import TrialError
from gpnas.files import read
from gpnas.worker import Job, load, work

TOKEN = "GPNAS_TOKEN"
"""Variable with the token where no file is named; a command line would show it to everyone."""
CAPACITY = ("parameters", "gmacs", "memory", "seconds")
"""What may be too much for a worker."""


def run(options: argparse.Namespace) -> Report:
    train = load(options.train, options.trial_hours)
    name = options.name or f"{platform.node()} {os.getpid()}-{secrets.token_hex(2)}"
    capacity = {cost: most for cost in CAPACITY if (most := getattr(options, f"max_{cost}"))}
    job = Job(options.search, name, options.folder, options.lease_seconds, capacity, options.most)
    trust = True if options.authorities is None else str(options.authorities)
    token = _token(options.token_file)
    with Client(options.url, token, patience=options.patience, certificates=trust, say=say) as client:
        tally = work(client, job, train, say)
    document = {"search": options.search, "worker": name, **asdict(tally)}
    told = f"{tally.told} told, {tally.failed} failed, {tally.stopped} stopped, {tally.lost} lost"
    return Report(document, [told])


def _token(path: Path | None) -> str:
    if path is None:
        token = os.environ.get(TOKEN, "")
        if not token:
            raise TrialError(f"a worker needs a token: name a file in --token-file, or set {TOKEN}")
        return token
    try:
        return read(path, 1_000, follow=True).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TrialError(f"{path}: a file with a token must be readable, but {error}") from None
