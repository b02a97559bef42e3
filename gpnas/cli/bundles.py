"""`gpnas export`, `gpnas evaluate` and `gpnas convert`: bundles, made, judged, given to other tools."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from gpnas.cli.console import add_levels, add_limits, limits_of, log, out, plain, positive, replacing

if TYPE_CHECKING:
    from gpnas.evaluation import Evaluation


def add_commands(command: Callable[..., Any]) -> None:
    """Adds them; `command` makes a parser with what all commands share."""
    export = command("export", _export, "write a bundle of a finished search")
    export.add_argument("search", metavar="RUN", type=Path, help="run folder")
    export.add_argument("--top", type=positive, default=3, help="how many networks (default: 3)")
    add_limits(export)
    export.add_argument("-o", "--output", type=Path, required=True, help="folder, or file with .zip")
    export.add_argument(
        "--licence",
        metavar="NAME",
        help="of the weights, such as CC-BY-4.0 (default: not stated); the text of a usual one is added",
    )
    export.add_argument("--licence-holder", metavar="NAME", help="of the copyright, which MIT's text names")
    export.add_argument("--licence-file", metavar="FILE", type=Path, help="text of the licence, to be added")
    export.add_argument(
        "--picture",
        metavar="DIR",
        type=Path,
        help="show a part of a validation image of this folder of pairs in the model card; unasked, only "
        "the shipped photographs are shown",
    )
    export.add_argument("--no-picture", action="store_true", help="show none")

    evaluate = command("evaluate", _evaluate, "measure a bundle: every network, every pair, all")
    evaluate.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder or .zip")
    evaluate.add_argument("--data", type=Path, help="folder of LR/HR pairs (default: shipped photographs)")
    add_levels(
        evaluate,
        drop_outlier="also measure the average of all, three or more, without the network that is farthest "
        "from their median at each pixel",
        self_ensemble="also measure averages over eight flips and transposes",
    )
    evaluate.add_argument(
        "--tiles",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also measure with tiles",
    )
    evaluate.add_argument(
        "--channel",
        choices=("rgb", "y"),
        default="rgb",
        help="compare RGB, or the luma of BT.601 in 16 … 235 (default: rgb)",
    )
    evaluate.add_argument(
        "--border", type=natural, default=0, help="HR pixels dropped on each side first (default: 0)"
    )
    evaluate.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables there as well")

    convert = command("convert", _convert, "write networks as ONNX, or RCAN under its official names")
    convert.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder or .zip")
    convert.add_argument(
        "network", metavar="NETWORK", nargs="?", help="such as network-2, or average (default: each)"
    )
    convert.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="file with .onnx, or with .safetensors, .pt, .pth for official names; a folder for ONNX of each",
    )


def natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, but got {number}")
    return number


def _export(options: argparse.Namespace) -> Any:
    from gpnas.bundle import known_licence, read_licence
    from gpnas.results.delivery import Allowance, export

    text = None
    if options.licence_file is not None:
        text = read_licence(options.licence_file)
    elif options.licence is not None:
        text = known_licence(options.licence, options.licence_holder)
        if text is None:
            log.print(plain(f"{options.licence}: its text is not known here; --licence-file FILE adds it"))
    document = export(
        options.search,
        options.top,
        options.output,
        allowance=Allowance(**limits_of(options)),
        picture=options.picture or not options.no_picture,
        licence=options.licence,
        licence_text=text,
    )
    if options.json:
        return document
    out.print(
        f"{len(document['portfolio'])} networks, {document['psnr']:.2f} dB: {plain(document['bundle'])}"
    )
    return None


def _evaluate(options: argparse.Namespace) -> Any:
    from gpnas.bundle import read_bundle
    from gpnas.evaluation import evaluate, evaluation_pairs, to_markdown

    bundle = read_bundle(options.bundle)
    # a place that cannot be written to is told now, and not after minutes of measuring
    with ExitStack() as open_files:
        write = open_files.enter_context(replacing(options.markdown)) if options.markdown else None
        pairs = evaluation_pairs(bundle, options.data, lambda line: log.print(plain(line)))
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=log, transient=True) as bar:
            task = bar.add_task("images", total=sum(len(each) for each in pairs))
            evaluation = evaluate(
                bundle,
                pairs,
                tile=options.tile,
                overlap=options.overlap,
                blend=options.blend,
                tiles=options.tiles,
                self_ensemble=options.self_ensemble,
                drop_outlier=options.drop_outlier,
                precision=options.precision,
                average=options.average,
                channels=options.channel,
                border=options.border,
                progress=lambda done, all_: bar.update(
                    task, completed=done, description=f"image {min(int(done) + 1, all_)} of {all_}"
                ),
            )
        if write is not None:
            try:
                write(to_markdown(evaluation))
                open_files.close()
            except OSError as error:  # what was measured is told all the same
                where = f"{options.markdown}: the tables could not be written"
                log.print(f"[bold red]error[/]: {plain(f'{where} ({error.strerror or error})')}")
                options.exit_code = 1
    if options.json:
        return evaluation.to_json()
    _show(evaluation)
    return None


def _convert(options: argparse.Namespace) -> Any:
    from gpnas.bundle import read_bundle
    from gpnas.conversion import convert

    bundle = read_bundle(options.bundle)
    with Progress(console=log, transient=True) as bar:
        task = bar.add_task("networks", total=None)
        document = convert(
            bundle,
            options.network,
            options.output,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if options.json:
        return document
    for row in document:
        checked = ""
        if "difference" in row:
            checked = f"  (onnxruntime differs from PyTorch by at most {row['difference']:.1e})"
        out.print(f"{row['network']} -> {plain(row['file'])}{checked}")
    return None


def _show(evaluation: Evaluation) -> None:
    from gpnas.evaluation.results import difference, measured, row_name, scored

    named = Table("network", "architecture", "weight", box=None)
    for number, architecture in enumerate(evaluation.architectures, start=1):
        named.add_row(str(number), plain(architecture), f"{evaluation.weights[number - 1]:.3f}")
    out.print(named)
    table = Table(title_justify="left")
    table.add_column("networks", no_wrap=True)
    for heading in ("PSNR dB", "", "SSIM", ""):
        table.add_column(heading, justify="left", no_wrap=True)
    table.add_column("over the best network alone, dB", no_wrap=True)
    psnr, ssim = scored(evaluation.bicubic, "psnr"), scored(evaluation.bicubic, "ssim")
    table.add_row("bicubic", *map(plain, (*psnr, *ssim)), "")
    for title, rows in evaluation.by_levels():
        table.add_section()
        table.add_row(f"[italic]{title}[/]")
        best = max(rows, key=lambda row: row.psnr)
        for row in rows:
            cells = [row_name(row), *scored(row, "psnr"), *scored(row, "ssim")]
            table.add_row(
                *map(plain, (*cells, difference(row.over_best))), style="bold" if row is best else None
            )
    out.print(table)
    out.print(plain(measured(evaluation)))
    out.print("Superscripts are ranks among as many networks at equal levels.")
