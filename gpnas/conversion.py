"""A bundle's networks for other tools: ONNX, or weights under the names of their official code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from gpnas.bundle import Bundle
from gpnas.ensemble import load_fusion, load_networks
from gpnas.errors import BundleError
from gpnas.files import did_you_mean
from gpnas_trainers.converting import OFFICIAL, Average, ConversionError, save_official, save_onnx

AVERAGE = "average"
"""Names all networks at once, averaged."""


def convert(
    bundle: Bundle,
    name: str | None,
    output: Path,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[dict[str, Any]]:
    """Writes networks of a bundle for other tools.

    Args:
        bundle: with its weights.
        name: `network-2` for the second one, `average` for all in one; None: each, unless there is but
            one.
        output: a file that ends in `.onnx`, or in `.safetensors`, `.pt` or `.pth` for weights under the
            official names; or a folder, which is made, for ONNX files.
        progress: called with networks done and all.

    Returns:
        Of each file: `network`, `file`, and of ONNX `difference`, the largest one of a pixel from
        PyTorch's.

    Raises:
        BundleError: no such network, or it has no such form.
    """
    suffix = output.suffix.lower()
    is_folder = output.is_dir() or not suffix
    known = [Path(member.file).stem for member in bundle.manifest.members]
    if suffix not in ("", ".onnx", *OFFICIAL) and not is_folder:
        raise BundleError(f"{output}: a file must end in .onnx, {', '.join(OFFICIAL)}, but ends in {suffix}")
    if name is None and not is_folder and len(known) > 1:
        raise BundleError(
            f"{output}: one network must be named, but there are {', '.join(known)}; name one of them, or "
            f"{AVERAGE}, or a folder as the output"
        )
    if name is not None and name not in (*known, AVERAGE):
        raise BundleError(
            f"a network must be one of {', '.join(known)}, {AVERAGE}, but got {name!r}"
            + did_you_mean(name, [*known, AVERAGE])
        )
    networks = load_networks(bundle)
    named: dict[str, nn.Module] = dict(zip(known, networks, strict=True))
    named[AVERAGE] = Average(networks, [member.weight for member in bundle.members], load_fusion(bundle))
    chosen = known if name is None else [name]
    written = []
    for done, each in enumerate(chosen):
        progress(done, len(chosen))
        path = output / f"{each}.onnx" if is_folder else output
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            row: dict[str, Any] = {"network": each, "file": str(path)}
            if path.suffix.lower() == ".onnx":
                row["difference"] = save_onnx(named[each], path, _metadata(bundle, each))
            else:
                save_official(named[each], path)
        except ConversionError as error:
            raise BundleError(f"{each}: {error}") from None
        written.append(row)
    progress(len(chosen), len(chosen))
    return written


def _metadata(bundle: Bundle, name: str) -> dict[str, str]:
    """What an ONNX file tells of itself; values are text."""
    manifest = bundle.manifest
    architectures = {
        Path(member.file).stem: member.architecture.model_dump()
        for member in manifest.members
        if name in (AVERAGE, Path(member.file).stem)
    }
    return {
        "gpnas": manifest.gpnas,
        "scale": str(manifest.scale),
        "architectures": json.dumps(architectures),
        "fusion": manifest.fusion.kind if manifest.fusion is not None and name == AVERAGE else "none",
        "data_fingerprint": str(manifest.data["fingerprint"]),
        "licence": manifest.licence or "not stated",
        "lr": "RGB in [0, 1], (batch, 3, h, w)",
    }
