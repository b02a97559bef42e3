"""Kinds of values on the command line, and the groups of options that several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpnas.errors import DataError

if TYPE_CHECKING:
    from gpnas.bundle import Bundle
    from gpnas.ensemble import Levels
    from gpnas.results.choosing import Allowance

STORAGE = "where checkpoints and networks go: a path, s3://… or what else pyarrow opens (default: --run)"


def path(text: str) -> Path:
    """A path; an empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a file or a folder, but is empty")
    return Path(text)


def whole(text: str, least: float = -math.inf, rule: str = "") -> int:
    """A whole number."""
    with suppress(ValueError):
        number = int(text)
        if number >= least:
            return number
    raise argparse.ArgumentTypeError(f"must be a whole number{rule}, but got {text!r}; write one such as 8")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return whole(text, 1, " of at least 1")


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return whole(text, 0, " of at least 0")


def number(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number, but got {text!r}; write one such as 0.5"
        ) from None


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = number(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text!r}; write a number such as 0.5")
    return value


def sides(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    return tuple(map(whole, text.split(",")))


def switch(sub: argparse.ArgumentParser, name: str, text: str, default: bool | None = None) -> None:
    """Adds `--name` and `--no-name`."""
    sub.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default, help=text)


def flag(sub: argparse.ArgumentParser, name: str, text: str) -> None:
    """Adds `--name`, which is given or not."""
    sub.add_argument(f"--{name}", action="store_true", help=text)


def repeatable(sub: argparse.ArgumentParser, name: str, metavar: str, text: str, **options: Any) -> None:
    """Adds `--name`, which makes a list of what it is given."""
    sub.add_argument(f"--{name}", metavar=metavar, action="append", default=[], help=text, **options)


def taken(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Options by name, for a record whose fields have the same names."""
    return {name: getattr(options, name) for name in names}


def add_run(sub: argparse.ArgumentParser, text: str = "run folder", *, required: bool = True) -> None:
    """Adds RUN, the folder of a search or of a final training."""
    sub.add_argument("search", metavar="RUN", type=path, nargs=None if required else "?", help=text)


def add_bundle(sub: argparse.ArgumentParser) -> None:
    """Adds BUNDLE, and by what its own networks are known."""
    sub.add_argument("bundle", metavar="BUNDLE", type=path, help="folder or .zip")
    add_networks(sub)


def bundle_of(options: argparse.Namespace) -> Bundle:
    """The bundle that BUNDLE names, whose networks are known."""
    from gpnas.bundle import read_bundle
    from gpnas.cli.terminal import say
    from gpnas.networks import declare_networks

    bundle = read_bundle(options.bundle)
    declare_networks(bundle, options.networks, say)
    return bundle


def add_networks(
    sub: argparse.ArgumentParser, of: str = "the bundle's own networks, nets.py or package.module"
) -> None:
    """Adds `--networks`, by which a user names sources of networks that gpnas lacks."""
    repeatable(sub, "networks", "SOURCE", f"repeatable: source of {of}, which is run")


def add_output(sub: argparse.ArgumentParser, text: str) -> None:
    """Adds `-o`, which must be given."""
    sub.add_argument("-o", "--output", type=path, required=True, help=text)


def add_trials(sub: argparse.ArgumentParser) -> None:
    """Adds what trials run on and where their files go, for a search and for a final training."""
    sub.add_argument("--storage", metavar="URI", help=STORAGE)
    sub.add_argument("--concurrent", type=positive, help="trainings side by side")
    sub.add_argument("--cpus-per-trial", type=positive, help="CPUs of each training (default: 1)")
    sub.add_argument(
        "--gpus-per-trial",
        type=float,
        help="part of a GPU for each training, 0 to 1 (default: by its memory and --concurrent)",
    )
    sub.add_argument("--address", help="of a Ray cluster (default: start Ray on this machine)")
    sub.add_argument("--budget-hours", type=above_zero, help="end in good order after so many hours")


def add_allowance(sub: argparse.ArgumentParser) -> None:
    """Adds how many networks a portfolio may have, and what they may cost together."""
    sub.add_argument("--top", type=positive, help="the most networks (default: the search's)")
    sub.add_argument(
        "--max-gmacs", type=above_zero, help="of all networks together, at 120×120 LR pixels (default: any)"
    )
    sub.add_argument("--max-parameters", type=above_zero, help="of all networks together (default: any)")


def allowance_of(options: argparse.Namespace) -> Allowance:
    """What those options say of costs."""
    from gpnas.results.choosing import Allowance

    limits = {"gmacs": options.max_gmacs, "parameters": options.max_parameters}
    return Allowance(**{name: limit for name, limit in limits.items() if limit is not None})


def add_levels(sub: argparse.ArgumentParser, *, drop_outlier: str, self_ensemble: str) -> None:
    """Adds the levels of the ensemble; two commands say differently what two of them do."""

    def choice(name: str, choices: Sequence[str], text: str) -> None:
        sub.add_argument(f"--{name}", choices=choices, default=choices[0], help=text)

    choice(
        "average",
        ("fused", "weights", "plain"),
        "of the networks: with weights for each pixel where the bundle has some, with its weights, or all "
        "equal (default: fused)",
    )
    sub.add_argument(
        "--tile",
        metavar="SIDE[,SIDE...]",
        type=sides,
        default=(120,),
        help="of tiles, in LR pixels; of several, each makes an image, and those are averaged; 0 takes the "
        "whole image at once (default: 120)",
    )
    sub.add_argument("--overlap", type=int, help="LR pixels shared by tiles (default: half of each tile)")
    choice(
        "blend",
        ("distance", "gaussian", "constant"),
        "how a tile's pixels count: by their distance from its centre, or equally (default: distance)",
    )
    switch(sub, "self-ensemble", self_ensemble, default=True)
    flag(sub, "drop-outlier", drop_outlier)
    choice(
        "precision",
        ("float32", "bfloat16", "float16"),
        "of the networks; float16 needs a GPU (default: float32)",
    )


def levels_of(options: argparse.Namespace) -> Levels:
    """What those options say; raises a `DataError` where it breaks a rule."""
    from gpnas.ensemble import Levels  # with PyTorch, which other commands do without

    names = ("tile", "overlap", "blend", "self_ensemble", "drop_outlier", "precision")
    try:
        return Levels(**taken(options, *names))
    except ValueError as error:
        raise DataError(str(error)) from None
