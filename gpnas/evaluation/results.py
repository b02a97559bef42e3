"""What a bundle reached, as records, as JSON and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gpnas.records import Architecture, number_of

Interval = tuple[float, float]
NETWORKS = "networks"
"""The level that averages several networks."""
DROP_OUTLIER = "drop_outlier"
"""The level that leaves one of them out at each pixel."""
FUSED = "fused"
"""The level that averages them with weights for each pixel."""
OF_NETWORKS = (NETWORKS, DROP_OUTLIER, FUSED)
"""Levels that say what is done to networks, rather than to an image."""
DIGITS = {"psnr": 2, "ssim": 4}
"""After the point, as the paper prints them; ranks are of what is printed."""

FEW = 10
"""Images; with fewer, a percentile interval is notably too narrow."""

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Difference:
    """PSNR in dB that one method has over another, image by image."""

    mean: float
    interval: Interval | None
    """Bootstrap interval of the mean; None of a single image."""

    def to_json(self) -> dict[str, Any]:
        return {"psnr": self.mean, "interval": self.interval and list(self.interval)}


@dataclass(frozen=True)
class Row:
    """One row of the paper's Table 1: the average of some networks, with some ensemble levels."""

    networks: tuple[int, ...]
    """Places in the bundle, from 1; none of the bicubic row."""
    members: tuple[Architecture, ...]
    levels: tuple[str, ...]
    """Those used of `networks` (an average of several), `tiles`, `self_ensemble`, `drop_outlier`, `fused`."""
    psnr: float
    """Mean over images in dB."""
    ssim: float
    """Mean over images."""
    psnr_interval: Interval | None
    """Bootstrap interval of the mean; None of a single image."""
    ssim_interval: Interval | None
    per_image: tuple[tuple[float, float], ...]
    """PSNR and SSIM of each image."""
    psnr_rank: int | None = None
    """Among rows of as many networks and the same levels; None where it is the only one."""
    ssim_rank: int | None = None
    over_best: Difference | None = None
    """Over the best network alone with the same levels otherwise; None of a single network."""
    over_bicubic: Difference | None = None

    def to_json(self) -> dict[str, Any]:
        scores = {
            "psnr": self.psnr,
            "ssim": self.ssim,
            "psnr_interval": self.psnr_interval and list(self.psnr_interval),
            "ssim_interval": self.ssim_interval and list(self.ssim_interval),
            "per_image": {
                "psnr": [psnr for psnr, _ in self.per_image],
                "ssim": [ssim for _, ssim in self.per_image],
            },
        }
        if not self.networks:
            return scores
        return {
            "networks": list(self.networks),
            "members": [member.to_json() for member in self.members],
            "levels": list(self.levels),
            **scores,
            "psnr_rank": self.psnr_rank,
            "ssim_rank": self.ssim_rank,
            "over_best": self.over_best and self.over_best.to_json(),
            "over_bicubic": self.over_bicubic and self.over_bicubic.to_json(),
        }


@dataclass(frozen=True)
class Evaluation:
    """A bundle measured on LR/HR pairs."""

    scale: int
    names: tuple[str, ...]
    """Names of the images."""
    architectures: tuple[Architecture, ...]
    """Those of the networks, in the bundle's order."""
    weights: tuple[float, ...]
    """Their shares of the average."""
    bicubic: Row
    rows: tuple[Row, ...]
    settings: Mapping[str, Any]
    """What exactly was measured, and how the intervals were drawn, as JSON."""

    @property
    def images(self) -> int:
        return len(self.names)

    def to_json(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "images": self.images,
            "names": list(self.names),
            "settings": dict(self.settings),
            "networks": [
                {"network": number, "architecture": architecture.to_json(), "weight": weight}
                for number, (architecture, weight) in enumerate(
                    zip(self.architectures, self.weights, strict=True), start=1
                )
            ],
            "bicubic": self.bicubic.to_json(),
            "rows": [row.to_json() for row in self.rows],
        }

    def by_levels(self) -> Iterator[tuple[str, list[Row]]]:
        """The rows of each combination of levels besides what is done to networks, with its name."""
        for levels, rows in groupby(
            self.rows, lambda row: [each for each in row.levels if each not in OF_NETWORKS]
        ):
            yield " and ".join(each.replace("_", "-") for each in levels) or "networks alone", list(rows)


def row_name(row: Row) -> str:
    """`1 + 2` for the average of the bundle's first two networks."""
    how = ", outlier dropped" if DROP_OUTLIER in row.levels else ", fused" if FUSED in row.levels else ""
    return " + ".join(map(str, row.networks)) + how


def measured(evaluation: Evaluation) -> str:
    """What exactly was measured, in a line."""
    settings = evaluation.settings
    channels = "RGB" if settings["channels"] == "rgb" else "Y of BT.601"
    return (
        f"{number_of(evaluation.images, 'image')}, ×{evaluation.scale}, {channels}, border "
        f"{settings['border']}; SSIM with an 11×11 gaussian window inside the image. In brackets "
        f"the {settings['confidence']:.0%} bootstrap interval of the mean over images "
        f"({settings['resamples']:,} resamples, seed {settings['seed']})."
        + (" With so few images it is too narrow." if 1 < evaluation.images < FEW else "")
    )


def scored(row: Row, name: str) -> tuple[str, str]:
    """A mean with its rank, and its interval, as they are shown.

    Args:
        row: of the table.
        name: `psnr` or `ssim`.
    """
    digits = DIGITS[name]
    rank, interval = getattr(row, f"{name}_rank"), getattr(row, f"{name}_interval")
    shown = "" if interval is None else f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
    mean = f"{getattr(row, name):.{digits}f}"
    return mean + ("" if rank is None else str(rank).translate(SUPERSCRIPTS)), shown


def difference(given: Difference | None) -> str:
    """A difference with its interval, as it is shown."""
    if given is None:
        return ""
    low_high = "" if given.interval is None else f" [{given.interval[0]:+.3f}, {given.interval[1]:+.3f}]"
    return f"{given.mean:+.3f}{low_high}"


def to_markdown(evaluation: Evaluation) -> str:
    """The tables, in Markdown; best means in bold, ranks as superscripts, as in the paper's Table 1."""
    lines = ["| network | architecture | weight |", "|---:|---|---:|"]
    named = zip(evaluation.architectures, evaluation.weights, strict=True)
    for number, (architecture, weight) in enumerate(named, start=1):
        lines.append(f"| {number} | {_cell(str(architecture))} | {weight:.3f} |")
    lines += ["", measured(evaluation)]
    for title, rows in evaluation.by_levels():
        lines += ["", f"### {title[0].upper()}{title[1:]}", ""]
        lines += ["| networks | PSNR dB | | SSIM | | over the best network alone, dB |"]
        lines += ["|---|---:|---|---:|---|---|"]
        best = {name: max(round(getattr(row, name), DIGITS[name]) for row in rows) for name in DIGITS}
        for row in (evaluation.bicubic, *rows):
            cells = [row_name(row) or "bicubic"]
            for name, digits in DIGITS.items():
                mean, interval = scored(row, name)
                bold = bool(row.networks) and round(getattr(row, name), digits) == best[name]
                cells += [f"**{mean}**" if bold else mean, interval]
            lines.append(f"| {' | '.join([*cells, difference(row.over_best)])} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "|<>[]`*_" else letter for letter in " ".join(text.split()))
