"""How large the files of residuals are, and how close the products are that come of them, beside float16.

    python experiments/residual_files.py WORK

WORK holds what `table1_real_pairs.py` left there: networks trained on City100 at several scales. Of the first
ten validation images, for each final training: bytes per value of the files, the error of the residuals'
mean products and of the error of a plain average of all networks, relative to float64 of the residuals that
the networks really leave; and the time that one image takes. Writes `results/residual_files.md`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import processor, versions
from torch import Tensor, nn

from gpnas.journal import Journal
from gpnas.results.delivery import trained_weights
from gpnas.run.residuals import ERRORS_FILE, packed, residual_products, write_errors
from gpnas.run.setup import Setup
from gpnas.run.storage import Folder, storage_in
from gpnas_trainers import build
from gpnas_trainers.pairs import PairSet, bicubic_upscale, open_pairs

REPORT = Path(__file__).resolve().parent / "results/residual_files.md"
IMAGES = 10


def validation(work: Path, fingerprint: str) -> PairSet:
    """The pairs that a run was validated by."""
    for folder in sorted((work / "pairs").iterdir()):
        pairs = open_pairs(folder, "validation") if (folder / "manifest.json").exists() else None
        if pairs is not None and pairs.fingerprint == fingerprint:
            return pairs.head(IMAGES)
    raise SystemExit(f"{work}/pairs: must hold the pairs that its runs were validated by")


def images_of(networks: list[nn.Module], pairs: PairSet) -> list[tuple[Tensor, Tensor]]:
    """Of each image: residuals SR - HR, and differences SR - bicubic, each (n, 3, H, W) float32."""
    found = []
    for index in range(len(pairs)):
        lr, hr = (image[None] for image in pairs.tensors(index))
        with torch.inference_mode():
            sr = torch.cat(
                [net(lr.contiguous(memory_format=torch.channels_last)).clamp(0, 1) for net in networks]
            )
        found.append((sr - hr, sr - bicubic_upscale(lr, pairs.scale)))
    return found


def products(residuals: list[Tensor]) -> Tensor:  # (I, n, n)
    return torch.stack([flat @ flat.T / flat.shape[1] for flat in (each.flatten(1) for each in residuals)])


def errors(found: Tensor, true: Tensor) -> str:
    """Cells of a row: the greatest error of an entry of an image and of the mean of all images, and that of
    the mean square error of a plain average, of an image and of all."""
    cells = []
    for matrix, exact in ((found, true), (found.mean(dim=0)[None], true.mean(dim=0)[None])):
        average, exact_average = matrix.mean(dim=(1, 2)), exact.mean(dim=(1, 2))
        cells += [(matrix / exact - 1).abs().max(), (average / exact_average - 1).abs().max()]
    return " | ".join(f"{float(cells[place]):.1e}" for place in (0, 2, 1, 3))


def rows(run: Path, work: Path) -> list[str]:
    with Journal.read(run) as journal:
        candidates = [each.candidate for each in journal.observations() if each.finished]
        setup = Setup.of(journal)
        scale, pairs = setup.scale, validation(work, setup.data.validation)
    networks = []
    for candidate in candidates:
        network = build(candidate.architecture.family, scale, **candidate.architecture.axes).eval()
        network.load_state_dict(trained_weights(storage_in(run), candidate))
        networks.append(network)
    images = images_of(networks, pairs)
    true = products([residual.double() for residual, _ in images])
    halves = products([residual.half().double() for residual, _ in images])
    values = sum(residual[0].numel() for residual, _ in images)
    start = time.perf_counter()
    for _, difference in images:
        packed(difference[0].double())
    packing = (time.perf_counter() - start) / len(images)
    with tempfile.TemporaryDirectory() as folder:
        storage = Folder(Path(folder))
        for number, network in enumerate(networks):
            write_errors(storage, f"candidates/c{number}", network, pairs)
        files = [Path(folder) / f"candidates/c{number}/{ERRORS_FILE}" for number in range(len(networks))]
        sizes = [file.stat().st_size / values for file in files]
        start = time.perf_counter()
        kept = residual_products(files)
        reading = (time.perf_counter() - start) / len(images) / len(files)
    own = f"{min(sizes):.2f} … {max(sizes):.2f}"
    return [
        f"| ×{scale} | float16 | 2.00 | {errors(halves, true)} | | |",
        f"| ×{scale} | ours | {own} | {errors(kept, true)} | {1e3 * packing:.0f} | {1e3 * reading:.0f} |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    table = [row for run in sorted(work.glob("x*-final")) for row in rows(run, work)]
    report = [
        "# Files of residuals",
        "",
        f"{processor()}, one thread; {versions(('gpnas', 'torch'))}; {date.today()}. City100, the first "
        f"{IMAGES} validation images of 480×480, the networks of `table1_real_pairs.py`. Errors are relative "
        "to float64: of mean products of two residuals, and of the mean square error of the plain average "
        "of all networks. Milliseconds are for one image of one network.",
        "",
        "| scale | kept as | bytes per value | product, an image | product, all images | average, an image "
        "| average, all images | to pack, ms | to read, ms |",
        "|---|---|---|---|---|---|---|---|---|",
        *table,
    ]
    REPORT.write_text("\n".join(report) + "\n")
    print(REPORT.read_text())


if __name__ == "__main__":
    main()
