"""A bundle's model card: what people read first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def model_card(document: Mapping[str, Any]) -> str:  # long: one document, from its head to its end
    """The card, in Markdown with the front matter that model hubs read.

    Args:
        document: the manifest as JSON, without its `model_card`.
    """
    scale, metrics, members = document["scale"], document["metrics"], document["members"]
    licence, text = document["licence"], document.get("licence_file")
    stated = _cell(licence or ("its own" if text else "not stated; ask whoever trained them"))
    if text:
        stated += f" ([{text['file']}]({text['file']}))"
    head = ["---", "library_name: gpnas", "pipeline_tag: image-to-image", "tags: [super-resolution]"]
    if licence:
        head.append(f"license: {json.dumps(licence.lower())}")
    elif text:
        head += ["license: other", f"license_link: {text['file']}"]
    rows = [
        f"| {_cell(member['file'])} | {_cell(_architecture(member['architecture']))} "
        f"| {member['parameters']:,} | {member['weight']:.3f} | {_number(member['metrics'].get('psnr'), 2)} "
        f"| {_number(member['metrics'].get('ssim'), 4)} |"
        for member in members
    ]
    average = "One network" if len(members) == 1 else f"{len(members)} networks whose outputs are averaged"
    fusion = document.get("fusion")
    if fusion is not None:
        average += (
            f" with weights for each pixel ({fusion['kind']}; {fusion['gain']:+.3f} ± {fusion['error']:.3f} "
            f"dB over those below, on {fusion['images']} validation images that it was not fitted to)"
        )
    source = document["data"].get("source")
    picture = document.get("picture")
    sources = document.get("networks", {})
    named = "".join(f" --networks {source['network'].rpartition(':')[0]}" for source in sources.values())
    needed = [
        f"`{_cell(family)}` is a network of its authors' own: `{_cell(source['network'])}`, SHA-256 "
        f"`{source['sha256']}`. Its source is not a part of this bundle, which runs no code; whoever has it "
        "names it by `--networks`."
        for family, source in sources.items()
    ]
    seen = []
    if picture is not None:
        seen = [f"![LR, bicubic, the average, HR]({picture['file']})", "", _cell(picture["caption"]), ""]
    return "\n".join(
        [
            *head,
            "---",
            "",
            f"# ×{scale} image super-resolution",
            "",
            f"{average}, found by a search with gpnas {_cell(document['gpnas'])}.",
            "",
            "| file | architecture | parameters | weight | PSNR dB | SSIM |",
            "|---|---|---:|---:|---:|---:|",
            *rows,
            "",
            f"On the validation images of the search (PSNR, RGB): bicubic {metrics['bicubic']:.2f} dB, the "
            f"best network alone {metrics['best']:.2f} dB, all {metrics['ensemble']:.2f} dB. The networks "
            "were chosen on these images too, so expect a little less on others.",
            "",
            *seen,
            "## Use",
            "",
            "```sh",
            f"gpnas upscale THIS_FOLDER photo.jpg -o photo_sr.png{_cell(named)}",
            f"gpnas evaluate THIS_FOLDER --data FOLDER_OF_PAIRS{_cell(named)}",
            "```",
            "",
            *(line for each in needed for line in (each, "")),
            "The networks expect images degraded as their training data were; on others they may sharpen "
            "noise or miss blur. What they add is plausible detail, not evidence.",
            "",
            "## Training",
            "",
            f"Data: {_cell(source) if source else 'not named'}, fingerprint "
            f"`{_cell(document['data']['fingerprint'])}`. Seed of the search: {document['seed']}. Recipe:",
            "",
            "```json",
            json.dumps(document["recipe"], indent=2, ensure_ascii=True),
            "```",
            "",
            f"Licence of the weights: {stated}. "
            f"Made {_cell(document['created'])}. `manifest.json` holds all of this for programs; "
            "`sha256sum --check SHA256SUMS` verifies the files.",
            "",
        ]
    )


def _architecture(architecture: Mapping[str, Any]) -> str:
    axes = ", ".join(f"{name} {value}" for name, value in architecture["axes"].items())
    return f"{architecture['family']}: {axes}" if axes else str(architecture["family"])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _cell(value: object) -> str:
    """Text that stays in its place: no line break, no column, no markup of its own."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in "|<>[]`*" else letter for letter in text)
