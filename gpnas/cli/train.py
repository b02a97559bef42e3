"""`gpnas train`: the final training of a search's portfolio, or of networks that a person chose."""

from __future__ import annotations

import argparse

from gpnas.cli.arguments import allowance_of, taken
from gpnas.cli.delivered import delivered
from gpnas.cli.reporting import Report
from gpnas.cli.watching import Watcher, means_of
from gpnas.dispatch.final import FinalRequest, run_final
from gpnas_trainers.recipe import rules


def run(options: argparse.Namespace) -> Report:
    with (watcher := Watcher("networks trained")):
        delivery = run_final(
            FinalRequest(
                **taken(options, "search", "run", "top", "data", "scale", "seed", "concurrent", "storage"),
                architectures=tuple(options.architecture),
                networks=tuple(options.networks),
                allowance=allowance_of(options),
                recipe_file=options.recipe,
                recipe={name: each for name, each in taken(options, *rules()).items() if each is not None},
                warm_start=options.start_from,
                means=means_of(options, options.devices),
                tensorboard=options.tensorboard,
            ),
            watcher,
        )
    return Report(delivery.to_json(), delivered(delivery, "Trained to the end"))
