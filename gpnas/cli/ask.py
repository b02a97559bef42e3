"""`gpnas ask`: the next candidate for a loop of one's own."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import time
from typing import Any

from gpnas.asked import Asked
from gpnas.cli.reporting import Report
from gpnas.cli.text import printable
from gpnas.opening import open_search
from gpnas.own_search import OwnSearch

FINISHED, WAITING = 3, 75
"""Exit codes where there is no candidate: none will come; come again later (`EX_TEMPFAIL` of sysexits.h)."""
PAUSE_SECONDS = 2.0
"""Between two looks while all that is left is trained by others."""


def run(options: argparse.Namespace) -> Report:
    search = open_search(
        options.search,
        options.space,
        trials=options.trials,
        strategy=options.strategy,
        seed=options.seed,
        worker=options.worker or _task(),
        lease_seconds=3600 * options.lease_hours,
        bound=False,
    )
    with search:
        if options.architecture:
            candidate = search.wanted(search.named(options.architecture))
            document = {"wanted": candidate.id, "architecture": candidate.architecture.to_json()}
            return Report(document, [f"{candidate.id}: whoever asks next is given {candidate.architecture}"])
        asked = _asked(search, options.wait)
        if asked is None:
            return _none(search, options.shell)
    document = asked.to_json()
    return Report(document, [shell(asked) if options.shell else json.dumps(document, indent=2)])


def _task() -> str | None:
    """The name of a SLURM task, which it keeps where it is queued again."""
    own = [os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK")]
    if all(own):
        return "slurm {}.{}".format(*own)
    job = os.environ.get("SLURM_JOB_ID")
    return f"slurm {job}.{os.environ.get('SLURM_PROCID', '0')}" if job else None


def _asked(search: OwnSearch, wait: bool) -> Asked | None:
    while True:
        asked = search.ask()
        if asked is not None or not wait or search.state == "finished":
            return asked
        time.sleep(PAUSE_SECONDS)


def _none(search: OwnSearch, for_shell: bool) -> Report:
    state = search.state
    if state == "finished":
        best = search.best()
        found = "" if best is None else f"; the best is {best.candidate.id} with {best.value:g}"
        line, code = f"finished: all that was granted is observed{found}", FINISHED
    else:
        line, code = "nothing by now: others train all that is left", WAITING
    from gpnas.cli.terminal import say

    say(line)
    document: dict[str, Any] = {"candidate": None, "state": state, "reason": line}
    return Report(document, [] if for_shell else [json.dumps(document, indent=2)], code)


def shell(asked: Asked) -> str:
    """A candidate as variables of a POSIX shell, each of a name that no other program heeds."""
    values: dict[str, Any] = {
        "candidate": asked.id,
        "lease": asked.lease.id,
        "attempt": asked.attempt,
        "seed": asked.seed,
        "checkpoint": asked.checkpoint or "",
        "family": asked.architecture.family,
        "arguments": " ".join(f"--{name}={value}" for name, value in asked.axes.items()),
    }
    for name, value in asked.axes.items():
        values["axis_" + re.sub(r"[^A-Za-z0-9_]", "_", name)] = value
    return "\n".join(f"{name}={shlex.quote(printable(value))}" for name, value in values.items())
