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

from gpnas.records import Candidate
from gpnas.run.layout import candidate_folder
from gpnas.run.residuals import errors_name, residual_products, unreadable
from gpnas.run.storage import storage_in

FILE = "products.safetensors"


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
    if new and not all(storage.exists(errors_name(storage, f"{folders}/{name}")) for name in known):
        known, kept, new = [], None, list(candidates)  # residuals of others may have been removed
    names = [*known, *(each.id for each in new)]
    if new:
        with ExitStack() as stack:
            try:
                files = [
                    stack.enter_context(storage.reading(errors_name(storage, f"{folders}/{name}")))
                    for name in names
                ]
            except OSError as error:
                raise unreadable(storage.uri, error) from None
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
        try:
            save_file({"products": products}, temporary, {"candidates": json.dumps(list(names))})
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
