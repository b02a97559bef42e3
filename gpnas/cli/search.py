"""`gpnas search`: the main job."""

from __future__ import annotations

import argparse

from gpnas.cli.arguments import taken
from gpnas.cli.delivered import delivered, own_delivered
from gpnas.cli.reporting import Report
from gpnas.cli.watching import Watcher, means_of
from gpnas.config import find_space, read_space_file
from gpnas.dispatch.request import Request
from gpnas.dispatch.search import run_own, run_search
from gpnas.opening import VALUE
from gpnas.run.setup import PSNR


def run(options: argparse.Namespace) -> Report:
    file = read_space_file(find_space(options.space))
    own = file.trainer is not None
    objective = file.objective.record() if file.objective else VALUE
    with (watcher := Watcher("trials observed", objective if own else PSNR)):
        request = Request(
            **taken(options, "space", "run", "data", "scale", "trials", "trial_hours", "concurrent"),
            **taken(
                options, "strategy", "cost_aware", "portfolio_aware", "early_stopping", "seed", "storage"
            ),
            warm_start=tuple(options.warm_start),
            means=means_of(options),
        )
        if own:
            outcome = run_own(request, watcher)
            return Report(outcome.to_json(), own_delivered(outcome))
        delivery = run_search(request, watcher)
    return Report(delivery.to_json(), delivered(delivery, "The best architectures, by posterior mean"))
