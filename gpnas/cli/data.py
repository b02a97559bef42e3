"""`gpnas data check` and `gpnas data prepare`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from gpnas.cli.console import log, out, pairs_bar, plain, positive

MAX_LINES = 200
"""So many exclusions are printed; `--json` has them all."""


def add_commands(commands: Any, command: Callable[..., Any]) -> None:
    """Adds both beneath `data`; `command` makes a parser with what all commands share."""
    text = "check folders of LR/HR photographs, and prepare them for training"
    data = commands.add_parser("data", help=text, description=text[0].upper() + text[1:] + ".")
    beneath = data.add_subparsers(title="commands", required=True, metavar="COMMAND")
    check = command("check", _check, "say what of a folder would be left out, and why", beneath)
    prepare = command("prepare", _prepare, "write a checked, split and cached set of pairs", beneath)
    for sub in (check, prepare):
        sub.add_argument("folder", metavar="DIR", type=Path, help="folder of LR/HR pairs")
        sub.add_argument("--scale", type=int, required=True, help="HR pixels per LR pixel")
        sub.add_argument(
            "--ncc", type=float, default=0.99, help="least agreement of LR with HR (default: 0.99; 0: any)"
        )
        sub.add_argument("--max-shift", type=float, help="greatest shift of LR, in LR pixels (default: any)")
        sub.add_argument(
            "--minimum-side", type=positive, default=48, help="smallest HR side, in pixels (default: 48)"
        )
        sub.add_argument(
            "--downsample-lr",
            action="store_true",
            help="downsample LR images that are as large as HR (registered captures)",
        )
        sub.add_argument(
            "--synthetic", action="store_true", help="DIR holds HR alone: make LR by the synthetic camera"
        )
        sub.add_argument(
            "--validation", type=positive, help="pairs to hold for validation (default: a fifth, at most 10)"
        )
        sub.add_argument("--seed", type=int, default=0, help="of the split and of the camera (default: 0)")
        sub.add_argument("--workers", type=positive, help="processes (default: one per core)")
    prepare.add_argument(
        "-o", "--output", metavar="CACHE", type=Path, help="folder for the set's own (default: the cache)"
    )
    for name, unit in (("kernel", "LR pixels"), ("noise", "8-bit levels")):
        prepare.add_argument(
            f"--{name}-sigma",
            nargs=2,
            type=float,
            metavar=("LOW", "HIGH"),
            help=f"range of the synthetic camera's {name}, in {unit}",
        )


def _selection(options: argparse.Namespace) -> Any:
    from gpnas.data import Selection

    return Selection(
        folder=options.folder,
        scale=options.scale,
        synthetic=options.synthetic,
        ncc=options.ncc,
        max_shift=options.max_shift,
        minimum_side=options.minimum_side,
        downsample_lr=options.downsample_lr,
        validation=options.validation,
        seed=options.seed,
        workers=options.workers,
    )


def _check(options: argparse.Namespace) -> Any:
    from gpnas.data import check

    with pairs_bar() as progress:
        document = check(_selection(options), progress)
    options.exit_code = 0 if document["problem"] is None else 1
    if options.json:
        return document
    _show_excluded(document)
    table = Table("rule", title=f"{document['pairs']} pairs at ×{document['scale']}", title_justify="left")
    table.add_column("left out", justify="right")
    for rule, count in Counter(row["rule"] for row in document["excluded"]).most_common():
        table.add_row(plain(rule), str(count))
    out.print(table)
    if document["ncc"]:
        kept = ", ".join(f"{count} at {limit}" for limit, count in document["ncc"]["kept_at"].items())
        out.print(
            f"NCC: lowest {document['ncc']['lowest']:.4f}, median {document['ncc']['median']:.4f}; "
            f"would keep {kept}"
        )
    if document["shift"]:
        out.print(
            f"shift of LR: median {document['shift']['median']:.2f}, largest "
            f"{document['shift']['largest']:.2f} LR pixels"
        )
    if document["problem"]:
        out.print(f"nothing can be prepared: {plain(document['problem'])}")
    else:
        out.print(
            f"usable: {document['usable']} pairs, {document['split']['train']} to train and "
            f"{document['split']['validation']} to validate"
        )
    return None


def _prepare(options: argparse.Namespace) -> Any:
    from gpnas.data import prepare

    given = {"kernel_sigma": options.kernel_sigma, "noise_sigma": options.noise_sigma}
    camera = {name: tuple(value) for name, value in given.items() if value is not None}
    if camera and not options.synthetic:
        log.print("--kernel-sigma and --noise-sigma have no effect without --synthetic")
    with pairs_bar() as progress:
        document = prepare(_selection(options), options.output, camera=camera, progress=progress)
    if options.json:
        return document
    _show_excluded(document)
    split, size = document["split"], document["bytes"] / 2**20
    next_command = f"gpnas search --space drn.yaml --scale {document['scale']} --data {document['prepared']}"
    out.print(
        f"{split['train']} pairs to train and {split['validation']} to validate, {size:,.0f} MiB, "
        f"fingerprint {document['fingerprint']['train'][:16]}\n"
        f"prepared: {plain(document['prepared'])}\n\n"
        f"next: {plain(next_command)}"
    )
    return None


def _show_excluded(document: dict[str, Any]) -> None:
    rows = document["excluded"]
    for row in rows[:MAX_LINES]:
        out.print(plain(row["line"]))
    if len(rows) > MAX_LINES:
        out.print(f"… and {len(rows) - MAX_LINES} more; --json has them all")
    for group in document["same_photograph"][:MAX_LINES]:
        out.print(f"one photograph, kept on one side: {plain(', '.join(group))}")
    for note in document["notes"]:
        out.print(f"note: {plain(note)}")
