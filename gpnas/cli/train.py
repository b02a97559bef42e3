"""`gpnas train`: the final training of a search's portfolio, or of networks that a person chose."""

from __future__ import annotations

import argparse

from gpnas.cli.arguments import allowance_of
from gpnas.cli.delivered import delivered
from gpnas.cli.reporting import Report
from gpnas.cli.watching import Watcher, means_of
from gpnas.dispatch.final import FinalRequest, run_final
from gpnas_trainers.recipe import rules


def run(options: argparse.Namespace) -> Report:
    with (watcher := Watcher("networks trained")):
        delivery = run_final(
            FinalRequest(
                search=options.search,
                architectures=tuple(options.architecture),
                networks=tuple(options.networks),
                run=options.run,
                top=options.top,
                allowance=allowance_of(options),
                data=options.data,
                scale=options.scale,
                recipe_file=options.recipe,
                recipe={name: value for name in rules() if (value := getattr(options, name)) is not None},
                warm_start=options.start_from,
                seed=options.seed,
                concurrent=options.concurrent,
                means=means_of(options, options.devices),
                tensorboard=options.tensorboard,
                storage=options.storage,
            ),
            watcher,
        )
    return Report(delivery.to_json(), delivered(delivery, "Trained to the end"))
