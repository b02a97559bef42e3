"""Mean products of the networks' residuals: all that a portfolio needs of them, in one small file.

The residuals of a candidate are read when it joins the file, against those of all before; choosing among
200 networks on 10 images then reads 3 MB instead of gigabytes. The file is a cache: what it lacks is
computed, and where it cannot be read or written nothing is lost but time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpnas.dispatch.storage import storage_in
from gpnas.dispatch.trial import RESIDUALS_FILE, candidate_folder
from gpnas.errors import TrialError
from gpnas.records import Candidate

FILE = "products.safetensors"
PIXELS = 100_000
"""So many of an image's values are multiplied at a time."""


def products_of(run: Path, candidates: Sequence[Candidate]) -> Tensor:
    """Mean products of trained candidates' residuals, one Gram matrix per image.

    With it the mean square error of an average with weights w is wᵀGw, exactly.

    Args:
        run: the run folder, where the products are kept; the residuals lie in its storage.
        candidates: at least one, each trained to the end.

    Returns:
        (I, n, n) float64 for I images and n candidates.

    Raises:
        TrialError: residuals that are needed are missing or damaged.
    """
    known, kept = _read(run / FILE)
    storage = storage_in(run)
    folders = candidate_folder(candidates[0]).rpartition("/")[0]
    new = [each for each in candidates if each.id not in known]
    if new and not all(storage.exists(f"{folders}/{name}/{RESIDUALS_FILE}") for name in known):
        known, kept, new = [], None, list(candidates)  # residuals of others may have been removed
    names = [*known, *(each.id for each in new)]
    if new:
        with ExitStack() as stack:
            try:
                files = [
                    stack.enter_context(storage.reading(f"{folders}/{name}/{RESIDUALS_FILE}"))
                    for name in names
                ]
            except OSError as error:
                raise _unreadable(storage.uri, error) from None
            rows = residual_products(files, first=len(known))
        products = torch.zeros(len(rows), len(names), len(names), dtype=torch.float64)
        if kept is not None:
            products[:, : len(known), : len(known)] = kept
        products[:, :, len(known) :] = rows
        products[:, len(known) :, :] = rows.transpose(1, 2)
        kept = products
        _write(run / FILE, names, kept)
    assert kept is not None
    places = torch.tensor([names.index(each.id) for each in candidates])
    return kept[:, places][:, :, places]


def residual_products(files: Sequence[Path], first: int = 0) -> Tensor:  # (I, n, n - first)
    """Mean products of the residuals in all n files with those in the last, per image, in float64.

    Args:
        files: residuals of each network, as `dispatch.trial.residuals` makes them.
        first: file from which on products are wanted.

    Raises:
        TrialError: a file is missing or damaged.
    """
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(safe_open(path, "pt")) for path in files]
            products = []
            for image in sorted(opened[0].keys()):  # one image at a time, so that memory stays small
                rows = torch.stack([file.get_tensor(image).flatten() for file in opened])
                # float32 would lose the fifth digit over a million pixels
                parts = (part.double() for part in rows.split(PIXELS, dim=1))
                products.append(sum(part @ part[first:].T for part in parts) / rows.shape[1])
        except (OSError, SafetensorError, RuntimeError) as error:
            raise _unreadable(str(Path(files[0]).parents[1]), error) from None
    return torch.stack(products)


def _unreadable(where: str, error: Exception) -> TrialError:
    return TrialError(
        f"{where}: every trained network's residuals must be readable, but "
        f"{' '.join(str(error).split())}; start another run"
    )


def _read(path: Path) -> tuple[list[str], Tensor | None]:
    """The candidates whose products a file holds, and these; nothing of a file that is none."""
    try:
        with safe_open(path, "pt") as file:
            names = json.loads(file.metadata()["candidates"])
            products: Tensor = file.get_tensor("products")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return [], None
    if products.dim() != 3 or products.shape[1:] != (len(names), len(names)):
        return [], None
    return names, products


def _write(path: Path, names: Sequence[str], products: Tensor) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # a run on a full disk, or of someone else, is read as well
    with suppress(OSError, SafetensorError):
        save_file({"products": products}, temporary, {"candidates": json.dumps(list(names))})
        os.replace(temporary, path)
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
