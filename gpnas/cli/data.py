"""`gpnas data check` and `gpnas data prepare`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from gpnas.cli.reporting import Report
from gpnas.cli.tables import Table
from gpnas.cli.terminal import bar, say
from gpnas.cli.text import advice, printable
from gpnas.data import Camera, Rules, Selection, check, data_errors, prepare

MAX_LINES = 200
"""So many exclusions are printed; `--json` has them all."""


def run(options: argparse.Namespace) -> Report:
    if options.command == "data check":
        with bar("pairs") as progress:
            document = check(_selection(options, {}), progress)
        return Report(document, _checked(document), 0 if document["problem"] is None else 1)
    sigmas = {"kernel_sigma": options.kernel_sigma, "noise_sigma": options.noise_sigma}
    camera = {name: tuple(value) for name, value in sigmas.items() if value is not None}
    if camera and not options.synthetic:
        say("--kernel-sigma and --noise-sigma have no effect without --synthetic")
    with bar("pairs") as progress:
        document = prepare(_selection(options, camera), options.output, progress)
    return Report(document, _prepared(document))


def _selection(options: argparse.Namespace, camera: Mapping[str, tuple[float, float]]) -> Selection:
    """Raises `DataError` where an option breaks a rule."""
    with data_errors():
        rules = Rules(
            minimum_side=options.minimum_side,
            minimum_ncc=options.ncc,
            maximum_shift=options.max_shift,
            downsample_lr=options.downsample_lr,
            seed=options.seed,
            validation_fraction=0.5 if options.validation else 0.2,
            max_validation=options.validation or 10,
        )
        maker = Camera(**camera) if options.synthetic else None
        return Selection(options.folder, options.scale, rules, maker, options.workers)


def _checked(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield from _excluded(document)
    yield f"{document['pairs']} pairs at ×{document['scale']}"
    if document["excluded"]:
        rules = Table("", "rule", "left out", whole=("rule",))
        for rule, count in Counter(row["rule"] for row in document["excluded"]).most_common():
            rules.add_row(rule, str(count))
        yield rules
    if document["ncc"]:
        kept = ", ".join(f"{count} at {limit}" for limit, count in document["ncc"]["kept_at"].items())
        yield (
            f"NCC: lowest {document['ncc']['lowest']:.4f}, median {document['ncc']['median']:.4f}; "
            f"would keep {kept}"
        )
    if document["shift"]:
        yield (
            f"shift of LR: median {document['shift']['median']:.2f}, largest "
            f"{document['shift']['largest']:.2f} LR pixels"
        )
    if document["problem"]:
        yield f"nothing can be prepared: {printable(document['problem'])}"
    else:
        yield (
            f"usable: {document['usable']} pairs, {document['split']['train']} to train and "
            f"{document['split']['validation']} to validate"
        )


def _prepared(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield from _excluded(document)
    split, size = document["split"], document["bytes"] / 2**20
    yield (
        f"{split['train']} pairs to train and {split['validation']} to validate, {size:,.0f} MiB, "
        f"fingerprint {document['fingerprint']['train'][:16]}"
    )
    yield f"prepared: {printable(document['prepared'])}"
    yield ""
    scale, prepared = document["scale"], document["prepared"]
    following = advice("search", "--space", "drn.yaml", "--scale", scale, "--data", prepared)
    yield f"next: {printable(following)}"


def _excluded(document: Mapping[str, Any]) -> Iterator[str]:
    rows = document["excluded"]
    for row in rows[:MAX_LINES]:
        yield printable(row["line"])
    if len(rows) > MAX_LINES:
        yield f"… and {len(rows) - MAX_LINES} more; --json has them all"
    for group in document["same_photograph"][:MAX_LINES]:
        yield f"one photograph, kept on one side: {printable(', '.join(group))}"
    for note in document["notes"]:
        yield f"note: {printable(note)}"
