"""`gpnas convert`: a bundle's networks for other tools."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpnas.bundle import read_bundle
from gpnas.cli.reporting import Report
from gpnas.cli.terminal import bar, say
from gpnas.cli.text import printable
from gpnas.conversion import convert
from gpnas.networks import declare_networks


def run(options: argparse.Namespace) -> Report:
    bundle = read_bundle(options.bundle)
    declare_networks(bundle, options.networks, say)
    with bar("networks") as progress:
        document = convert(bundle, options.network, options.output, progress)
    return Report(document, _shown(document))


def _shown(document: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in document:
        checked = ""
        if "difference" in row:
            checked = f"  (onnxruntime differs from PyTorch by at most {row['difference']:.1e})"
        yield f"{row['network']} -> {printable(row['file'])}{checked}"
