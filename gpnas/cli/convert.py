"""`gpnas convert`: a bundle's networks for other tools."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpnas.cli.arguments import bundle_of
from gpnas.cli.reporting import Report
from gpnas.cli.terminal import bar
from gpnas.cli.text import printable
from gpnas.conversion import convert


def run(options: argparse.Namespace) -> Report:
    bundle = bundle_of(options)
    with bar("networks") as progress:
        document = convert(bundle, options.network, options.output, progress)
    return Report(document, _shown(document))


def _shown(document: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in document:
        checked = ""
        if "difference" in row:
            checked = f"  (onnxruntime differs from PyTorch by at most {row['difference']:.1e})"
        yield f"{row['network']} -> {printable(row['file'])}{checked}"
