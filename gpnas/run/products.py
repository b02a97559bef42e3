"""Mean products of the networks' residuals: all that a portfolio needs of them, in one small file.

The residuals of a candidate are read when it joins the file, against those of all before; choosing among
200 networks on 10 images then reads 3 MB instead of gigabytes. The file is a cache: what it lacks is
computed, a damaged one is made anew, and where it cannot be read or written nothing is lost but time.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gpnas.files import read, replacing
from gpnas.records import Candidate
from gpnas.run.layout import candidate_folder
from gpnas.run.residuals import ERRORS_FILE, Floats, ResidualError, residual_products
from gpnas.run.storage import Storage, storage_in

FILE = "products.safetensors"
MOST = 2**31
"""Bytes that the file may have."""

log = logging.getLogger(__name__)


def products_of(run: Path, candidates: Sequence[Candidate]) -> Floats:
    """Mean products of trained candidates' residuals, one Gram matrix per image.

    With it the mean square error of an average with weights w is wᵀGw, exactly.

    Args:
        run: the run folder, where the products are kept; the residuals lie in its storage.
        candidates: at least one, each trained to the end.

    Returns:
        (I, n, n) for I images and n candidates.

    Raises:
        ResidualError: residuals that are needed are missing or damaged.
    """
    files = {each.id: f"{candidate_folder(each)}/{ERRORS_FILE}" for each in candidates}
    folder = candidate_folder(candidates[0]).rpartition("/")[0]
    known, kept = _read(run / FILE)
    names = list(dict.fromkeys([*known, *files]))
    if len(names) > len(known):
        storage = storage_in(run)
        files = {name: f"{folder}/{name}/{ERRORS_FILE}" for name in known} | files
        if not all(
            storage.exists(files[name]) for name in known
        ):  # residuals of others may have been removed
            known, names = [], [each.id for each in candidates]
        rows = _computed(storage, [files[name] for name in names], len(known))
        if known and len(rows) != len(kept):  # these are of other images
            known, names = [], [each.id for each in candidates]
            rows = _computed(storage, [files[name] for name in names], 0)
        products = np.zeros((len(rows), len(names), len(names)))
        if known:
            products[:, : len(known), : len(known)] = kept
        products[:, :, len(known) :] = rows
        products[:, len(known) :, :] = rows.transpose(0, 2, 1)
        kept = products
        _write(run / FILE, names, kept)
    places = [names.index(each.id) for each in candidates]
    return kept[:, places][:, :, places]


def _computed(storage: Storage, names: Sequence[str], first: int) -> Floats:
    with ExitStack() as stack:
        paths = []
        for name in names:
            try:
                paths.append(stack.enter_context(storage.reading(name)))
            except OSError as error:
                raise ResidualError(f"{storage.uri}/{name}", error) from None
        try:
            return residual_products(paths, first)
        except ResidualError as error:
            # by its name in the storage, which may differ from that of the copy that was read
            name = names[[str(path) for path in paths].index(error.file)]
            raise ResidualError(f"{storage.uri}/{name}", error.reason) from None


def _read(path: Path) -> tuple[list[str], Floats]:
    """The candidates whose products a file holds, and these; nothing of a file that is damaged."""
    nothing: tuple[list[str], Floats] = [], np.empty((0, 0, 0))
    try:
        content = load(read(path, MOST))
        names = json.loads(content["candidates"].tobytes())
        products = content["products"]
        if products.dtype != np.float64 or products.shape[1:] != (len(names), len(names)):
            raise ValueError("its numbers are not those of its candidates")
        if int(content["crc32"][0]) != zlib.crc32(products.tobytes()):
            raise ValueError("its checksum is another")
    except FileNotFoundError:
        return nothing
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        log.warning("%s: is damaged, so it is made anew: %s", path, " ".join(str(error).split()))
        return nothing
    return names, products


def _write(path: Path, names: Sequence[str], products: Floats) -> None:
    content = {
        "candidates": np.frombuffer(json.dumps(list(names)).encode(), np.uint8),
        "products": products,
        "crc32": np.array([zlib.crc32(products.tobytes())], np.uint32),
    }
    # a run on a full disk, or of someone else, is read as well
    with suppress(OSError), replacing(path) as new:
        new.write_bytes(save(content))
