"""What a trained network keeps of its residuals SR - HR, such that mean products with any other's follow.

Only products are wanted, so only they are kept exact. With B the bicubic image, every residual is
r = d + b of a network's own d = SR - B and of b = B - HR, which all networks have in common; therefore

    mean(r_i r_j) = mean(d_i d_j) + mean(d_i b) + mean(d_j b) + mean(b b)

The last three are numbers, kept in float64 as mean(r_i r_i) is. The difference d is rounded to 1/32 of a
grey level, and its low and its high bytes are deflated: about 1.1 bytes for each number where float16 takes
2, with errors of the products as small. (Cosines over blocks took 0.8, with four times the code.)

    errors.safetensors    tensors `0003.0000`, `0003.0001`, …: uint8, parts of an image's differences
                          metadata: `images`, for each its count of differences and the numbers above
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gpnas.errors import TrialError
from gpnas.files import check
from gpnas.run.storage import Storage

if TYPE_CHECKING:
    from torch import nn

    from gpnas_trainers.pairs import PairSet

ERRORS_FILE = "errors.safetensors"

STEP = 1 / 32 / 255
"""The step to which differences are rounded: 1/32 of a grey level."""
PART = 2**17
"""Differences that are packed and multiplied at a time."""
TOGETHER = 8
"""Networks whose files are read at a time beside one's own, which has to be unpacked each time."""
MOST = 2**32
"""Differences of an image that a file is believed to hold."""

Floats = NDArray[np.float64]


class ResidualError(TrialError):
    """A file of residuals that is missing or damaged."""

    def __init__(self, file: str, reason: object) -> None:
        super().__init__(
            f"{file}: a trained network's residuals must be as they were written, but "
            f"{' '.join(str(reason).split())}; remove this file and start the search or training again, "
            "which makes it anew"
        )
        self.file, self.reason = file, reason


def write_errors(storage: Storage, folder: str, network: nn.Module, pairs: PairSet) -> None:
    """Keeps what products of a trained network's residuals on every image of `pairs` need, in its folder.

    Raises:
        OSError: the storage cannot be written.
    """
    tensors, images = {}, {}
    for index, (own, common) in enumerate(_differences(network, pairs)):
        name = f"{index:04d}"
        for place, start in enumerate(range(0, own.size, PART)):
            data = np.frombuffer(packed(own[start : start + PART]), np.uint8)
            tensors[f"{name}.{place:04d}"] = data
        images[name] = {
            "count": own.size,
            "square": float(np.square(own + common).mean()),
            "with_common": float((own * common).mean()),
            "common": float(np.square(common).mean()),
        }
    storage.write(f"{folder}/{ERRORS_FILE}", save(tensors, {"images": json.dumps(images)}))


def residual_products(files: Sequence[Path], first: int = 0) -> Floats:  # (I, n, n - first)
    """Mean products of the residuals in all n files with those in the last, per image.

    Args:
        files: of each network, as `write_errors` made them.
        first: file from which on products are wanted.

    Raises:
        ResidualError: a file is missing or damaged, or not of the same images as the first.
    """
    with ExitStack() as stack:
        opened = [_Residuals(path, stack) for path in files]
        for each in opened[1:]:
            each.compare(opened[0])
        return np.stack([_image_products(name, opened, first) for name in sorted(opened[0].images)])


def error_correlations(storage: Storage, folder: str) -> dict[str, float]:
    """Correlations of a finished candidate's errors with those of every other that has finished, by name.

    Each publishes its residuals before it reads the others', so of two that end at once one sees both.
    """
    parent, _, own_name = folder.rpartition("/")
    others = [
        name.removeprefix(f"{parent}/").partition("/")[0]
        for name in sorted(storage.names(parent))
        if name.endswith(f"/{ERRORS_FILE}") and name != f"{folder}/{ERRORS_FILE}"
    ]

    def correlated(names: Sequence[str]) -> dict[str, float]:
        with ExitStack() as stack:
            paths = [
                stack.enter_context(storage.reading(f"{parent}/{name}/{ERRORS_FILE}"))
                for name in [*names, own_name]
            ]
            mean = residual_products(paths).mean(axis=0)
        size = np.sqrt(mean.diagonal())
        return dict(zip(names, (mean[:-1, -1] / (size[:-1] * size[-1]).clip(1e-30)).tolist(), strict=True))

    correlations: dict[str, float] = {}
    for start in range(0, len(others), TOGETHER):
        group = others[start : start + TOGETHER]
        try:
            correlations |= correlated(group)
        except (OSError, TrialError):
            for name in group:
                with suppress(OSError, TrialError):  # a damaged one will be missed where it is needed
                    correlations |= correlated([name])
    return correlations


def packed(differences: Floats) -> bytes:  # (count,) in [-1, 1]
    """Differences rounded to whole numbers of `STEP`, deflated."""
    whole = np.rint(differences / STEP).astype(np.int32)
    unsigned = ((whole << 1) ^ (whole >> 31)).astype(np.uint16)  # 0, -1, 1, -2, … as 0, 1, 2, 3, …
    planes = (unsigned & 0xFF).astype(np.uint8).tobytes() + (unsigned >> 8).astype(np.uint8).tobytes()
    return zlib.compress(planes)


def unpacked(data: bytes, count: int) -> Floats:  # (count,)
    """The differences that `packed` took, of which there must be `count`; never more are unpacked.

    Raises:
        ValueError: these bytes are not such.
    """
    inflate = zlib.decompressobj()
    try:
        planes = inflate.decompress(data, 2 * count + 1)
    except zlib.error as error:
        raise ValueError(f"its packed numbers cannot be unpacked ({error})") from None
    if len(planes) != 2 * count or not inflate.eof or inflate.unused_data:
        raise ValueError(f"its packed numbers are not {count}")
    low, high = np.frombuffer(planes, np.uint8).reshape(2, count).astype(np.int32)
    unsigned = low | high << 8
    return np.asarray(((unsigned >> 1) ^ -(unsigned & 1)) * STEP)


def _differences(network: nn.Module, pairs: PairSet) -> Iterator[tuple[Floats, Floats]]:
    """Two differences for each image: SR - bicubic and bicubic - HR, flat."""
    import torch

    from gpnas_trainers.pairs import bicubic_upscale

    device = next((each.device for each in network.parameters()), torch.device("cpu"))
    network.eval()
    for index in range(len(pairs)):
        lr, hr = (each[None].to(device) for each in pairs.tensors(index))
        with torch.inference_mode():
            sr = network(lr.contiguous(memory_format=torch.channels_last)).clamp(0, 1).double()
        bicubic = bicubic_upscale(lr, pairs.scale).double()
        yield (sr - bicubic).cpu().numpy().ravel(), (bicubic - hr).cpu().numpy().ravel()


class _Residuals:
    """A file of residuals, open; each of its numbers is checked where it is read."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        try:
            check(path)
            self._file = stack.enter_context(safe_open(path, "np"))
            self.images: dict[str, Any] = json.loads((self._file.metadata() or {})["images"])
            for image in self.images.values():
                whole = type(image["count"]) is int and 0 < image["count"] <= MOST
                if not whole or not all(math.isfinite(float(image[name])) for name in NUMBERS):
                    raise ValueError("its numbers are not those of an image")
        except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise ResidualError(str(path), error) from None

    def compare(self, other: _Residuals) -> None:
        """Raises a `ResidualError` where the images are not those of another file."""

        def alike(name: str) -> bool:
            own, their = self.images[name], other.images[name]
            return own["count"] == their["count"] and math.isclose(
                own["common"], their["common"], rel_tol=1e-5, abs_tol=1e-9
            )

        if self.images.keys() != other.images.keys() or not all(map(alike, self.images)):
            raise ResidualError(str(self.path), f"they are of other images than those in {other.path}")

    def part(self, image: str, place: int, count: int) -> Floats:
        """Differences of an image."""
        try:
            data = self._file.get_tensor(f"{image}.{place:04d}")
            if data.dtype != np.uint8:
                raise ValueError(f"its packed numbers are of {data.dtype}")
            return unpacked(data.tobytes(), count)
        except (OSError, SafetensorError, ValueError) as error:
            raise ResidualError(str(self.path), error) from None


NUMBERS = ("square", "with_common", "common")
"""What a file says of each image beside its differences."""


def _image_products(name: str, files: Sequence[_Residuals], first: int) -> Floats:  # (n, n - first)
    count = files[0].images[name]["count"]
    products = np.zeros((len(files), len(files) - first))
    for place, start in enumerate(range(0, count, PART)):  # a part at a time, so that memory stays small
        part = np.stack([file.part(name, place, min(PART, count - start)) for file in files])
        products += part @ part[first:].T
    square, with_common, common = (
        np.array([float(file.images[name][number]) for file in files]) for number in NUMBERS
    )
    products = products / count + with_common[:, None] + with_common[first:] + common[0]
    own = np.arange(len(files) - first)
    products[first + own, own] = square[first:]
    return np.asarray(products)
