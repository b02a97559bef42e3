"""A table of really trained networks of all families, with the products of their residuals.

    python experiments/family_table.py WORK [--first N]

City100 ×2 as `members.py` trains on it, 300 steps each. Writes `results/family_table.csv` (family, axes,
cost, PSNR of each network, its learning curve) and `results/family_products.npz` (for each validation image
the products of all networks' residuals, the upper triangle in single precision). Of some networks there is
a second training from another seed. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from members import Cache, Member, alone_of, skipped

RESULTS = Path(__file__).resolve().parent / "results"
TABLE, PRODUCTS = RESULTS / "family_table.csv", RESULTS / "family_products.npz"
STEPS = 300
AXES: dict[str, tuple[str, ...]] = {
    "drn": ("features", "blocks", "stages"),
    "rcan": ("features", "groups", "blocks"),
    "edsr": ("features", "blocks"),
    "rrdb": ("features", "blocks", "growth"),
    "span": ("features", "blocks"),
    "plksr": ("features", "blocks", "kernel"),
    "safmn": ("features", "blocks"),
    "nafnet": ("width", "blocks"),
    "compact": ("features", "convolutions"),
    "swinir": ("features", "groups", "blocks", "heads"),
}
SIZES: dict[str, list[tuple[int, ...]]] = {
    "drn": [(20, 4, 3), (12, 2, 2), (20, 2, 1), (28, 2, 2), (12, 4, 3), (20, 2, 3)],
    "rcan": [(24, 1, 6), (16, 1, 3), (32, 1, 3), (24, 1, 3), (16, 1, 6), (32, 1, 5)],
    "edsr": [(32, 5), (16, 3), (24, 5), (40, 3), (24, 3), (40, 5)],
    "rrdb": [(16, 3, 8), (12, 2, 8), (24, 2, 12), (16, 2, 16), (12, 3, 12), (16, 2, 8)],
    "span": [(24, 3), (16, 2), (16, 4), (24, 2), (16, 3), (12, 3)],
    "plksr": [(24, 5, 13), (16, 3, 9), (24, 3, 17), (16, 6, 13), (24, 4, 9), (16, 4, 17)],
    "safmn": [(36, 6), (24, 4), (36, 3), (24, 8), (24, 6), (36, 4)],
    "nafnet": [(32, 8), (24, 4), (40, 5), (32, 4), (24, 8), (40, 8)],
    "compact": [(40, 8), (24, 4), (48, 4), (32, 6), (24, 8), (48, 6)],
    "swinir": [(32, 2, 2, 4), (24, 1, 2, 4), (32, 1, 2, 4), (24, 2, 2, 4), (32, 1, 3, 4), (40, 1, 2, 4)],
}
"""By family, the largest first."""
AGAIN = (("drn", 0), ("plksr", 0), ("nafnet", 0))
"""Networks that are trained from a second seed."""


def member(family: str, sizes: tuple[int, ...], steps: int = STEPS, **others: Any) -> Member:
    return Member(family, dict(zip(AXES[family], sizes, strict=True)), steps, **others)


def planned() -> list[Member]:
    """The table's networks, those of all families first."""
    most = max(len(each) for each in SIZES.values())
    rows = [
        member(family, sizes[place])
        for place in range(most)
        for family, sizes in SIZES.items()
        if place < len(sizes)
    ]
    again = [member(family, SIZES[family][place], seed=1) for family, place in AGAIN]
    return rows[:30] + again + rows[30:]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path)
    options.add_argument("--first", type=int, help="only so many of the networks")
    arguments = options.parse_args()
    if skipped():
        return
    cache, members = Cache(arguments.work), planned()[: arguments.first]
    for each in members:
        cache.residuals(each)
    products = cache.products(members)
    psnr = alone_of(products)
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["family", "axes", "seed", "parameters", "gmacs", "psnr", "curve"])
        for place, each in enumerate(members):
            axes = " ".join(f"{name}={value}" for name, value in each.axes.items())
            curve = " ".join(f"{step}:{value:.3f}" for step, value in cache.curve(each).items())
            costs = [each.parameters, f"{each.gmacs:.3f}", f"{psnr[:, place].mean():.4f}"]
            writer.writerow([each.family, axes, each.seed, *costs, curve])
    rows, columns = np.triu_indices(len(members))
    np.savez_compressed(PRODUCTS, upper=products[:, rows, columns].astype(np.float32))
    print(f"{len(members)} networks: {TABLE.name}, {PRODUCTS.name}")


if __name__ == "__main__":
    main()
