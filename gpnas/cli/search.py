"""`gpnas search`: the main job."""

from __future__ import annotations

import argparse

from gpnas.cli.delivered import delivered
from gpnas.cli.reporting import Report
from gpnas.cli.watching import Watcher, means_of
from gpnas.dispatch.search import Request, run_search


def run(options: argparse.Namespace) -> Report:
    with (watcher := Watcher("trials observed")):
        delivery = run_search(
            Request(
                space=options.space,
                run=options.run,
                data=options.data,
                scale=options.scale,
                trials=options.trials,
                concurrent=options.concurrent,
                strategy=options.strategy,
                cost_aware=options.cost_aware,
                portfolio_aware=options.portfolio_aware,
                warm_start=tuple(options.warm_start),
                seed=options.seed,
                early_stopping=options.early_stopping,
                storage=options.storage,
                means=means_of(options),
            ),
            watcher,
        )
    return Report(delivery.to_json(), delivered(delivery, "The best architectures, by posterior mean"))
