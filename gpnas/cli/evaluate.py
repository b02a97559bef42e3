"""`gpnas evaluate`: how good a bundle is."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import RenderableType
from rich.progress import TaskProgressColumn, TimeRemainingColumn

from gpnas import files
from gpnas.bundle import Bundle
from gpnas.cli.arguments import bundle_of, levels_of
from gpnas.cli.reporting import Report
from gpnas.cli.tables import Table
from gpnas.cli.terminal import bar, fail, say, styled
from gpnas.cli.text import label, legend
from gpnas.errors import DataError
from gpnas.evaluation import Evaluation, evaluate, evaluation_pairs, keep, to_markdown
from gpnas.evaluation.results import difference, measured, row_name, scored


def run(options: argparse.Namespace) -> Report:
    levels = levels_of(options)
    bundle = bundle_of(options)
    exit_code = 0
    # a place that cannot be written to is told now, and not after minutes of measuring
    with ExitStack() as open_files:
        write = open_files.enter_context(_writer(options.markdown)) if options.markdown else None
        pairs = evaluation_pairs(bundle, options.data, say)
        with bar("images", TaskProgressColumn(), TimeRemainingColumn()) as progress:
            progress(0, sum(len(each) for each in pairs))
            evaluation = evaluate(
                bundle,
                pairs,
                levels,
                tiles=options.tiles,
                average=options.average,
                channels=options.channel,
                border=options.border,
                progress=lambda done, all_: progress(
                    done, all_, f"image {min(int(done) + 1, all_)} of {all_}"
                ),
            )
        if write is not None:
            try:
                write(to_markdown(evaluation))
                open_files.close()
            except OSError as error:  # what was measured is told all the same
                fail(f"{options.markdown}: the tables could not be written ({error.strerror or error})")
                exit_code = 1
    if options.data is None and bundle.manifest.data.get("validation") not in {
        each.fingerprint for each in pairs
    }:
        say("measured on the shipped photographs; what validated these networks is named by --data")
    _keep(evaluation, bundle, options.bundle)
    return Report(evaluation.to_json(), _shown(evaluation), exit_code)


def _keep(evaluation: Evaluation, bundle: Bundle, path: Path) -> None:
    """Keeps an evaluation beside its bundle, where a report finds it; where that cannot be, says so."""
    try:
        say(f"kept for `gpnas report`: {keep(evaluation, bundle, path)}")
    except OSError as error:
        say(f"beside the bundle nothing can be kept for `gpnas report` ({error.strerror or error})")


@contextmanager
def _writer(path: Path) -> Iterator[Callable[[str], object]]:
    """A file that takes its place once the block has ended well; yields what writes its text.

    Raises:
        DataError: at once, where no such file can be written.
    """
    if path.exists() and not path.is_file():  # a pipe, such as /dev/stdout
        with path.open("w", encoding="utf-8") as file:
            yield file.write
        return
    with files.replacing(path) as new:
        try:
            file = new.open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"{path}: must be a file that can be written, but: {error.strerror}; choose another place"
            ) from None
        with file:
            yield file.write


def _shown(evaluation: Evaluation) -> Iterator[RenderableType]:
    networks = Table("", "network", "architecture", "weight", whole=("network", "architecture"))
    for number, architecture in enumerate(evaluation.architectures, start=1):
        networks.add_row(str(number), label(architecture), f"{evaluation.weights[number - 1]:.3f}")
    yield networks
    yield legend(evaluation.architectures)
    beside = ["over the best network alone, dB"] if len(evaluation.architectures) > 1 else []
    columns = ("networks", "PSNR dB", "", "SSIM", "", *beside)
    scores = Table("", *columns, whole=("networks", "PSNR dB", "SSIM"), left=("", *beside))
    scores.add_row("bicubic", *scored(evaluation.bicubic, "psnr"), *scored(evaluation.bicubic, "ssim"))
    for title, rows in evaluation.by_levels():
        scores.add_section()
        scores.add_row(styled(title, "italic"))
        best = max(rows, key=lambda row: row.psnr)
        for row in rows:
            cells = [row_name(row), *scored(row, "psnr"), *scored(row, "ssim"), difference(row.over_best)]
            scores.add_row(*cells[: len(columns)], style="bold" if row is best else None)
    yield scores
    yield measured(evaluation)
    if beside:
        yield "Superscripts are ranks among as many networks at equal levels."
